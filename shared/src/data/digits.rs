//! The embedded set: 1,797 digits of 8 x 8 from `data/digits`; a node trains out of the box.
//!
//! The files lie in the repository, where a merge or a careless tool can damage them; a run on
//! damaged data would only look like a poor model. So opening compares them with their checksums.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{DataError, IdxDataset};

const IMAGES: (&str, &[u8]) =
    ("images.idx3-ubyte", include_bytes!("../../../data/digits/images.idx3-ubyte"));
const LABELS: (&str, &[u8]) =
    ("labels.idx1-ubyte", include_bytes!("../../../data/digits/labels.idx1-ubyte"));
const SUMS: &str = include_str!("../../../data/digits/SHA256SUMS");

/// The highest value of a pixel: each counts the inked points of a 4 x 4 block.
const FULL_INK: f32 = 16.0;

/// The embedded handwritten digits.
pub fn digits() -> Result<IdxDataset, DataError> {
    check(IMAGES, SUMS)?;
    check(LABELS, SUMS)?;
    let file = |(name, content)| (name, Bytes::from_static(content));
    IdxDataset::parse("digits", file(IMAGES), file(LABELS), FULL_INK)
}

/// Compares a file with its line in the output of `sha256sum`.
fn check((file, content): (&'static str, &[u8]), sums: &str) -> Result<(), DataError> {
    let digest: [u8; 32] = Sha256::digest(content).into();
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    match sums.lines().any(|line| line.split_once("  ") == Some((hex.as_str(), file))) {
        true => Ok(()),
        false => Err(DataError::Checksum { file }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    #[test]
    fn the_set_is_the_published_one() {
        let set = digits().unwrap();
        assert_eq!((set.name(), set.len(), set.classes()), ("digits", 1797, 10));
        assert_eq!(set.inputs(), [crate::model::Port::float("x", &[1, 8, 8])]);
        // Of scikit-learn's load_digits: np.bincount(target), and images.sum() / 16.
        let mut counts = [0; 10];
        let mut values = Vec::new();
        for i in 0..set.len() {
            counts[set.label(i) as usize] += 1;
            set.write_pixels(i, &mut values);
        }
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        assert_eq!(values.iter().map(|&v| f64::from(v)).sum::<f64>(), 561_718.0 / 16.0);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let mut content = LABELS.1.to_vec();
        content[100] ^= 1;
        let error = check((LABELS.0, &content), SUMS).unwrap_err();
        assert!(error.to_string().contains("labels.idx1-ubyte"), "{error}");
        assert!(check(LABELS, "").is_err(), "a file without a checksum");
    }
}
