//! The `data` list of a JSON tensor, flat or nested, as a flat list of numbers.
//!
//! The list is read straight from the text into numbers: a tree of JSON values would take many times
//! the memory of the tensor. The shape is known beforehand, so that a list which is ragged, nested
//! differently from the shape or too long is refused where that shows, instead of being
//! flattened into a tensor that the client did not mean.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

/// Reads `json` as the values of a tensor of this shape. The error is one line and gives the
/// position within `json`.
pub fn flatten<T: Number>(json: &str, shape: &[usize]) -> Result<Vec<T>, String> {
    let total = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
    // A number and its comma take two characters: a short text cannot make this reserve much.
    let values = Vec::with_capacity(total.min(json.len() / 2 + 1));
    let mut reader = Reader { values, shape, total, layout: Layout::Unknown };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Entry { reader: &mut reader, depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|e| e.to_string())?;
    Ok(reader.values)
}

/// An element type that JSON numbers are read as.
pub trait Number: Copy {
    fn from_i64(value: i64) -> Self;
    /// `None` for a number that this type must not round.
    fn from_f64(value: f64) -> Option<Self>;
}

impl Number for f32 {
    fn from_i64(value: i64) -> Self {
        value as f32
    }

    fn from_f64(value: f64) -> Option<Self> {
        Some(value as f32)
    }
}

impl Number for i64 {
    fn from_i64(value: i64) -> Self {
        value
    }

    fn from_f64(_: f64) -> Option<Self> {
        None
    }
}

/// Which of the two allowed forms the list has; its first entry decides.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    Unknown,
    Flat,
    Nested,
}

struct Reader<'s, T> {
    values: Vec<T>,
    shape: &'s [usize],
    total: usize,
    layout: Layout,
}

impl<T: Number> Reader<'_, T> {
    /// Takes one number found inside `depth` lists.
    fn number<E: Error>(&mut self, value: T, depth: usize) -> Result<(), E> {
        if depth == 0 {
            return Err(E::custom("a number is not a list; send a list of numbers"));
        }
        if self.layout == Layout::Unknown {
            self.layout = if depth == 1 { Layout::Flat } else { Layout::Nested };
        }
        if self.layout == Layout::Nested && depth != self.shape.len() {
            let (shape, rank) = (self.shape, self.shape.len());
            return Err(E::custom(format_args!(
                "a number is inside {depth} lists, shape {shape:?} needs {rank}"
            )));
        }
        if self.values.len() == self.total {
            return Err(E::custom(format_args!(
                "more than the {} values of the shape",
                self.total
            )));
        }
        self.values.push(value);
        Ok(())
    }

    /// Allows one list found inside `depth` others.
    fn open<E: Error>(&mut self, depth: usize) -> Result<(), E> {
        if depth == 0 {
            return Ok(());
        }
        if self.layout == Layout::Flat {
            return Err(E::custom("numbers and lists are mixed; send one flat list or nest all"));
        }
        self.layout = Layout::Nested;
        if depth >= self.shape.len() {
            let shape = self.shape;
            return Err(E::custom(format_args!("the lists nest deeper than shape {shape:?}")));
        }
        Ok(())
    }

    /// Checks the length of a list that ended inside `depth` others.
    fn close<E: Error>(&self, depth: usize, found: usize) -> Result<(), E> {
        let flat = depth == 0 && self.layout != Layout::Nested;
        let wanted = if flat { self.total } else { self.shape.get(depth).copied().unwrap_or(0) };
        if found == wanted {
            return Ok(());
        }
        let shape = self.shape;
        Err(E::custom(format_args!("a list has {found} entries, shape {shape:?} needs {wanted}")))
    }
}

/// One entry, a number or a list, inside `depth` lists. The depth never passes the shape's rank, so
/// that a hostile text cannot exhaust the stack.
struct Entry<'r, 's, T> {
    reader: &'r mut Reader<'s, T>,
    depth: usize,
}

impl<'de, T: Number> DeserializeSeed<'de> for Entry<'_, '_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Number> Visitor<'de> for Entry<'_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a list of numbers")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match T::from_f64(value) {
            Some(value) => self.reader.number(value, self.depth),
            None => Err(E::custom(format_args!("{value} is not a whole number"))),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.reader.number(T::from_i64(value), self.depth)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.reader.open(self.depth)?;
        let mut found = 0;
        while list
            .next_element_seed(Entry { reader: &mut *self.reader, depth: self.depth + 1 })?
            .is_some()
        {
            found += 1;
        }
        self.reader.close(self.depth, found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flat_and_nested_lists_mean_the_same() {
        let wanted = vec![1.0, 2.5, -3.0, 4.0];
        assert_eq!(flatten::<f32>("[1, 2.5, -3, 4e0]", &[2, 2]), Ok(wanted.clone()));
        assert_eq!(flatten::<f32>("[[1, 2.5], [-3, 4]]", &[2, 2]), Ok(wanted));
        assert_eq!(flatten::<f32>("[7]", &[1]), Ok(vec![7.0]));
    }

    #[test]
    fn lists_that_do_not_fit_the_shape_are_refused() {
        let cases = [
            ("3", "not a list"),
            ("[]", "0 entries"),
            ("[1,2,3]", "3 entries, shape [2, 2] needs 4"),
            ("[1,2,3,4,5]", "more than the 4 values"),
            ("[[1,2,3],[4]]", "3 entries, shape [2, 2] needs 2"),
            ("[[1,2]]", "1 entries, shape [2, 2] needs 2"),
            ("[1,[2,3],4]", "mixed"),
            ("[[1,2],3,4]", "inside 1 lists"),
            ("[[[1,2],[3,4]]]", "nest deeper"),
            ("[\"1\",2,3,4]", "expected a number or a list"),
            ("[true,2,3,4]", "expected a number or a list"),
            ("[null,2,3,4]", "expected a number or a list"),
            ("[1,2,3,4] 5", "trailing"),
        ];
        for (json, why) in cases {
            let error = flatten::<f32>(json, &[2, 2]).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
        assert!(flatten::<f32>(&"[".repeat(100_000), &[2, 2]).is_err());
    }

    #[test]
    fn whole_numbers_are_not_rounded() {
        let most = i64::MAX.to_string();
        assert_eq!(flatten::<i64>(&format!("[-1, {most}]"), &[2]), Ok(vec![-1, i64::MAX]));
        for number in ["1.5", "1.0", "1e3", "9223372036854775808"] {
            let error = flatten::<i64>(&format!("[{number}]"), &[1]).unwrap_err();
            assert!(error.contains("is not a whole number"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(json in "[\\[\\],0-9.eE\\- n]{0,64}|.{0,64}",
                          shape in proptest::collection::vec(0usize..4, 0..4)) {
            if let Ok(values) = flatten::<f32>(&json, &shape) {
                prop_assert_eq!(values.len(), shape.iter().product::<usize>());
            }
        }
    }
}
