//! Requests that wait for a slot, first come, first served; what is of one kind may be served together.

use std::collections::VecDeque;

/// Who waits, and how many turns are on their way. Each turn takes the first that waits, if anybody does, and there are
/// never fewer turns than requests: so everybody is served, and what is given up leaves no turns behind without bound.
#[derive(Debug)]
pub struct Line<K, T> {
    /// In the order of their tickets.
    waiting: VecDeque<Entry<K, T>>,
    /// Most that may wait.
    room: usize,
    next: u64,
    turns: usize,
}

#[derive(Debug)]
struct Entry<K, T> {
    ticket: u64,
    kind: K,
    samples: usize,
    item: T,
}

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub ticket: u64,
    /// Whether a turn has to be started for it.
    pub needs_turn: bool,
}

impl<K: PartialEq, T> Line<K, T> {
    pub fn new(room: usize) -> Self {
        Self { waiting: VecDeque::new(), room, next: 0, turns: 0 }
    }

    /// Lets a request of so many samples wait; none if there is no room.
    pub fn push(&mut self, kind: K, samples: usize, item: T) -> Option<Placed> {
        if self.waiting.len() >= self.room {
            return None;
        }
        let ticket = self.next;
        self.next += 1;
        self.waiting.push_back(Entry { ticket, kind, samples, item });
        let needs_turn = self.turns < self.waiting.len();
        self.turns += usize::from(needs_turn);
        Some(Placed { ticket, needs_turn })
    }

    /// A turn: the first request, and those behind it that are of its kind, up to so many samples together. Empty if
    /// nobody waits.
    pub fn take(&mut self, most: usize) -> Vec<T> {
        self.turns = self.turns.saturating_sub(1);
        let Some(first) = self.waiting.pop_front() else { return Vec::new() };
        let mut room = most.saturating_sub(first.samples);
        let mut taken = vec![first.item];
        let mut at = 0;
        while room > 0 && at < self.waiting.len() {
            let entry = &self.waiting[at];
            if entry.kind != first.kind || entry.samples > room {
                at += 1;
                continue;
            }
            room -= entry.samples;
            taken.extend(self.waiting.remove(at).map(|entry| entry.item));
        }
        taken
    }

    /// Takes a request out, if it still waits.
    pub fn remove(&mut self, ticket: u64) -> Option<T> {
        let at = self.waiting.binary_search_by_key(&ticket, |entry| entry.ticket).ok()?;
        self.waiting.remove(at).map(|entry| entry.item)
    }

    /// How many requests wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each request is its kind, its samples and its number.
    fn line(requests: &[(char, usize)]) -> Line<char, usize> {
        let mut line = Line::new(requests.len());
        for (number, &(kind, samples)) in requests.iter().enumerate() {
            assert_eq!(line.push(kind, samples, number).unwrap().ticket, number as u64);
        }
        line
    }

    #[test]
    fn only_what_fits_together_is_taken_together() {
        let mut line = line(&[('x', 2), ('y', 1), ('x', 4), ('x', 2), ('y', 1), ('x', 1)]);
        // The third would be too much.
        assert_eq!(line.take(5), [0, 3, 5]);
        assert_eq!(line.take(1), [1], "one sample is one request");
        assert_eq!(line.take(3), [2], "a request alone may have more");
        assert_eq!(line.take(5), [4]);
        assert!(line.take(5).is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_and_what_is_given_up_makes_room() {
        let mut line = line(&[('x', 1), ('x', 1)]);
        assert_eq!(line.push('x', 1, 2), None);
        assert_eq!((line.remove(0), line.remove(0), line.remove(7)), (Some(0), None, None));
        // The turn of the one that left serves the one that came.
        assert_eq!(line.push('x', 1, 2), Some(Placed { ticket: 2, needs_turn: false }));
        assert_eq!(line.take(9), [1, 2]);
    }

    proptest! {
        /// Whoever does not leave is served by the turns that were started, the first first, and no turns pile up.
        #[test]
        fn there_are_turns_for_all_and_no_more(
            steps in prop::collection::vec((0u8..4, 0u8..2, 1usize..4), 0..80), most in 1usize..6, room in 1usize..9,
        ) {
            let mut line = Line::new(room);
            let (mut here, mut turns) = (Vec::new(), 0);
            for (step, kind, samples) in steps {
                match step {
                    0 | 1 => {
                        let number = line.next;
                        let placed = line.push(kind, samples, number);
                        prop_assert_eq!(placed.is_some(), here.len() < room);
                        let Some(placed) = placed else { continue };
                        turns += usize::from(placed.needs_turn);
                        here.push(placed.ticket);
                    }
                    2 if !here.is_empty() => {
                        let gone = here.remove(samples % here.len());
                        prop_assert_eq!(line.remove(gone), Some(gone));
                    }
                    3 if turns > 0 => {
                        turns -= 1;
                        let taken = line.take(most);
                        prop_assert_eq!(taken.first(), here.first());
                        here.retain(|ticket| !taken.contains(ticket));
                    }
                    _ => {}
                }
                prop_assert!((here.len()..=room).contains(&turns), "{turns} turns for {here:?}");
            }
            for _ in 0..turns {
                line.take(most);
            }
            prop_assert_eq!(line.waiting(), 0);
        }
    }
}
