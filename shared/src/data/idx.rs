//! IDX files, the format of MNIST: magic, element type and rank, big-endian sizes, elements.
//!
//! The parser is strict, for a file that is almost right trains a model that is quietly wrong:
//! only `u8`, the exact rank, and exactly as many bytes as the sizes say. The pixels stay the bytes
//! that were read and become floats one batch at a time, a quarter of the memory.

use std::{fs, io, path::Path};

use bytes::Bytes;

use super::{DataError, Dataset, INPUT, Target};
use crate::model::Port;

const UNSIGNED_BYTE: u8 = 0x08;

/// Why bytes are not the IDX file they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdxError {
    #[error("is gzip: unpack it first, for example with gunzip")]
    Gzip,
    #[error("does not start with 0 0, a type and a rank: give an IDX file")]
    Magic,
    #[error("has elements of type {0:#04x}: only unsigned bytes (0x08) are read")]
    Element(u8),
    #[error(
        "has rank {found}, not {expected}: images have 3, labels 1; are the two files swapped?"
    )]
    Rank { expected: usize, found: usize },
    #[error("ends within its header: get a complete copy")]
    Header,
    #[error("has sizes {sizes:?}, one of them zero: give a set with samples")]
    Empty { sizes: Vec<usize> },
    #[error("has sizes {sizes:?} but {found} bytes of elements: get an undamaged copy")]
    Length { sizes: Vec<usize>, found: usize },
}

/// The sizes and the elements of a `u8` IDX file of `RANK`; no element is copied.
fn parse<const RANK: usize>(file: &Bytes) -> Result<([usize; RANK], Bytes), IdxError> {
    let (magic, rest) = file.split_first_chunk::<4>().ok_or(IdxError::Header)?;
    match *magic {
        [0x1f, 0x8b, ..] => return Err(IdxError::Gzip),
        [0, 0, UNSIGNED_BYTE, rank] if usize::from(rank) == RANK => {}
        [0, 0, UNSIGNED_BYTE, rank] => {
            return Err(IdxError::Rank { expected: RANK, found: rank.into() });
        }
        [0, 0, element, _] => return Err(IdxError::Element(element)),
        _ => return Err(IdxError::Magic),
    }
    let mut sizes = [0; RANK];
    let mut rest = rest;
    for size in &mut sizes {
        let (bytes, after) = rest.split_first_chunk::<4>().ok_or(IdxError::Header)?;
        // What does not fit a usize cannot match the length of a file in memory.
        *size = usize::try_from(u32::from_be_bytes(*bytes)).unwrap_or(usize::MAX);
        rest = after;
    }
    if sizes.contains(&0) {
        return Err(IdxError::Empty { sizes: sizes.to_vec() });
    }
    let elements = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    if elements != Some(rest.len()) {
        return Err(IdxError::Length { sizes: sizes.to_vec(), found: rest.len() });
    }
    Ok((sizes, file.slice_ref(rest)))
}

/// Grey images and their labels, from a pair of IDX files.
#[derive(Debug, Clone)]
pub struct IdxDataset {
    name: String,
    height: usize,
    width: usize,
    classes: usize,
    scale: f32,
    /// `labels.len() * height * width` of them, never zero.
    pixels: Bytes,
    labels: Bytes,
}

impl IdxDataset {
    /// Reads and checks both files; pixels are divided by 255.
    pub fn open(images: &Path, labels: &Path) -> Result<Self, DataError> {
        let names = (images.display().to_string(), labels.display().to_string());
        let files = (read(images)?, read(labels)?);
        Self::parse("idx", (&names.0, files.0), (&names.1, files.1), f32::from(u8::MAX))
    }

    /// The set in two files, each given as its name (for errors) and its content.
    ///
    /// `scale` is the value of a pixel that becomes 1.0.
    pub fn parse(
        name: &str,
        (images_file, images): (&str, Bytes),
        (labels_file, labels): (&str, Bytes),
        scale: f32,
    ) -> Result<Self, DataError> {
        let at = |file: &str| {
            let file = file.to_string();
            move |source| DataError::Idx { file, source }
        };
        let ([count, height, width], pixels) = parse::<3>(&images).map_err(at(images_file))?;
        let ([label_count], labels) = parse::<1>(&labels).map_err(at(labels_file))?;
        if count != label_count {
            return Err(DataError::Counts {
                images: count,
                images_file: images_file.into(),
                labels: label_count,
                labels_file: labels_file.into(),
            });
        }
        let classes = labels.iter().max().map_or(0, |&highest| usize::from(highest) + 1);
        Ok(Self { name: name.into(), height, width, classes, scale, pixels, labels })
    }

    fn pixels(&self, index: usize) -> &[u8] {
        let size = self.height * self.width;
        &self.pixels[index * size..][..size]
    }

    /// Appends the pixels of one image, `0.0..=1.0`.
    pub fn write_pixels(&self, index: usize, out: &mut Vec<f32>) {
        out.extend(self.pixels(index).iter().map(|&p| f32::from(p) / self.scale));
    }

    pub fn label(&self, index: usize) -> i64 {
        self.labels[index].into()
    }

    pub fn classes(&self) -> usize {
        self.classes
    }
}

/// The whole of a regular file: a device or a pipe could go on without end.
fn read(path: &Path) -> Result<Bytes, DataError> {
    let content = match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(io::Error::other("not a regular file")),
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    content.map(Bytes::from).map_err(|source| DataError::Read { path: path.into(), source })
}

impl Dataset for IdxDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn inputs(&self) -> Vec<Port> {
        vec![Port::float(INPUT, &[1, self.height, self.width])]
    }

    fn target(&self) -> Target {
        Target::numbered(self.classes)
    }

    fn write_input(&self, index: usize, _input: usize, out: &mut Vec<u8>) {
        let values = self.pixels(index).iter().map(|&p| f32::from(p) / self.scale);
        out.extend(values.flat_map(f32::to_le_bytes));
    }

    fn write_label(&self, index: usize, out: &mut Vec<u8>) {
        out.extend(self.label(index).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(sizes: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, UNSIGNED_BYTE, sizes.len() as u8];
        file.extend(sizes.iter().flat_map(|s| s.to_be_bytes()));
        file.extend(elements);
        file
    }

    fn set(images: Vec<u8>, labels: Vec<u8>) -> Result<IdxDataset, DataError> {
        IdxDataset::parse("test", ("images", images.into()), ("labels", labels.into()), 255.0)
    }

    fn image_error(images: Vec<u8>) -> String {
        set(images, file(&[1], &[0])).unwrap_err().to_string()
    }

    /// Small files that are often valid, else too short or too long: random bytes are never valid.
    fn nearly_idx(rank: usize) -> impl Strategy<Value = Vec<u8>> {
        let size = prop_oneof![1 => Just(0), 15 => 1u32..4];
        let off = prop_oneof![5 => Just(0isize), 1 => -30isize..30];
        (prop::collection::vec(size, rank), off).prop_map(|(sizes, off)| {
            let elements: Vec<u8> = (0..sizes.iter().product::<u32>() as u8).collect();
            let mut file = file(&sizes, &elements);
            file.resize(file.len().saturating_add_signed(off), 0);
            file
        })
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(
            images in prop::collection::vec(any::<u8>(), 0..64),
            labels in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = set(images, labels);
        }

        #[test]
        fn what_is_accepted_can_be_read(images in nearly_idx(3), labels in nearly_idx(1)) {
            if let Ok(set) = set(images, labels) {
                let mut values = Vec::new();
                (0..set.len()).for_each(|i| set.write_pixels(i, &mut values));
                let (height, width) = (set.height, set.width);
                prop_assert_eq!(values.len(), set.len() * height * width);
            }
        }

        #[test]
        fn files_round_trip(
            (n, h, w) in (1u32..6, 1u32..5, 1u32..5),
            seed in prop::collection::vec(any::<u8>(), 105),
        ) {
            let (pixels, labels) = (&seed[..(n * h * w) as usize], &seed[100..][..n as usize]);
            let set = set(file(&[n, h, w], pixels), file(&[n], labels)).unwrap();
            prop_assert_eq!(set.len(), n as usize);
            prop_assert_eq!((set.height, set.width), (h as usize, w as usize));
            prop_assert_eq!(set.classes(), usize::from(*labels.iter().max().unwrap()) + 1);
            let mut values = Vec::new();
            (0..set.len()).for_each(|i| set.write_pixels(i, &mut values));
            let back: Vec<u8> = values.iter().map(|v| (v * 255.0).round() as u8).collect();
            prop_assert_eq!(&back[..], pixels);
            prop_assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
            prop_assert!((0..set.len()).all(|i| set.label(i) == i64::from(labels[i])));
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert!(image_error(vec![0x1f, 0x8b, 8, 0]).contains("gunzip"));
        assert!(image_error(b"<html>".to_vec()).contains("give an IDX file"));
        assert!(image_error(vec![0, 0]).contains("ends within its header"));
        assert!(image_error(file(&[1], &[0])).contains("has rank 1, not 3"));
        assert!(image_error(vec![0, 0, 8, 3, 0, 0, 0, 1]).contains("ends within its header"));
        assert!(image_error(vec![0, 0, 0x0d, 3]).contains("type 0x0d"));
        assert!(image_error(file(&[0, 28, 28], &[])).contains("one of them zero"));
        assert!(image_error(file(&[1, 2, 2], &[0; 3])).contains("but 3 bytes"));
        assert!(image_error(file(&[1, 2, 2], &[0; 5])).contains("but 5 bytes"));
        assert!(image_error(file(&[u32::MAX; 3], &[0; 5])).contains("but 5 bytes"));
        assert_eq!(
            image_error(file(&[2, 1, 1], &[0; 2])),
            "2 images in images, 1 labels in labels: give the two files of one set"
        );
    }

    #[test]
    fn files_are_named_in_errors() {
        let dir = tempfile::tempdir().unwrap();
        let (images, labels) = (dir.path().join("i"), dir.path().join("l"));
        fs::write(&images, file(&[2, 1, 1], &[0, 255])).unwrap();
        let error = IdxDataset::open(&images, &labels).unwrap_err().to_string();
        assert!(error.contains(labels.to_str().unwrap()), "{error}");
        let error = IdxDataset::open(&images, dir.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        fs::write(&labels, file(&[2], &[4, 1])).unwrap();
        let set = IdxDataset::open(&images, &labels).unwrap();
        let mut values = Vec::new();
        (0..2).for_each(|i| set.write_pixels(i, &mut values));
        assert_eq!((values, set.classes(), set.label(1)), (vec![0.0, 1.0], 5, 1));
    }
}
