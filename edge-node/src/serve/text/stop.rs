//! Stop strings: text that ends an answer and is no part of it.
//!
//! A stop string may begin in one token and end in another, so text that could still become one is
//! held back. Where the text is cut does not depend on how it came in pieces: the stop string that
//! is complete first wins.

/// Looks for stop strings in text that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    stops: Vec<String>,
    /// Seen, but not given out: it may be the beginning of a stop string.
    held: String,
}

impl Stops {
    /// `stops` has no empty string.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes more text. Gives what is certainly before every stop string, and whether one was found,
    /// after which there is nothing more.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let ends = self.stops.iter().filter_map(|s| Some((self.held.find(s)? + s.len(), s.len())));
        // Of those that end together, the longest: it began first.
        let first = ends.min_by_key(|&(end, length)| (end, end - length));
        if let Some((end, length)) = first {
            self.held.truncate(end - length);
            return (std::mem::take(&mut self.held), true);
        }
        let begun = self.stops.iter().map(|s| begun(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - begun);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, once there is no more text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `text` that `stop` begins with, not all of it.
fn begun(text: &str, stop: &str) -> usize {
    // Both are UTF-8, so a prefix that ends inside a character is not the end of a text.
    let (text, stop) = (text.as_bytes(), stop.as_bytes());
    let most = text.len().min(stop.len().saturating_sub(1));
    (1..=most).rev().find(|&n| text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut search = Stops::new(stops.iter().map(|s| s.to_string()).collect());
        let mut given = Vec::new();
        for piece in pieces {
            let (text, found) = search.push(piece);
            given.push(text);
            if found {
                return (given, true);
            }
        }
        given.push(search.finish());
        (given, false)
    }

    #[test]
    fn text_that_may_become_a_stop_string_waits() {
        let (given, found) = cut(&["\n\nQ:"], &["one\n", "\n", "Q", " not", " it\n\n", "Q: two"]);
        assert_eq!(
            (given, found),
            (["one", "", "", "\n\nQ not", " it", ""].map(String::from).to_vec(), true)
        );
        assert_eq!(cut(&["END"], &["the EN"]), (vec!["the ".into(), "EN".into()], false));
        assert_eq!(cut(&[], &["all"]), (vec!["all".into(), String::new()], false));
    }

    #[test]
    fn the_stop_string_that_is_complete_first_wins() {
        assert_eq!(cut(&["bc", "abcd"], &["xabcd"]).0, ["xa"]);
        assert_eq!(cut(&["b", "ab"], &["xabcd"]).0, ["x"]);
    }

    proptest! {
        /// Against the definition: one character at a time, looking back at every stop string.
        #[test]
        fn pieces_do_not_matter(
            pieces in proptest::collection::vec("[abé]{0,4}", 0..8),
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let whole = pieces.concat();
            let ends = whole.char_indices().map(|(at, c)| at + c.len_utf8());
            let matches = ends.filter_map(|end| {
                let longest = stops.iter().filter(|s| whole[..end].ends_with(*s)).map(String::len).max()?;
                Some(end - longest)
            });
            let expected = matches.into_iter().next();
            let names: Vec<&str> = stops.iter().map(String::as_str).collect();
            let texts: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (given, found) = cut(&names, &texts);
            prop_assert_eq!(found, expected.is_some());
            prop_assert_eq!(given.concat(), &whole[..expected.unwrap_or(whole.len())]);
        }
    }
}
