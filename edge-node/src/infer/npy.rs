//! NumPy's files of one array (`numpy.save`): a magic number, a header that is a Python dictionary, the values.
//!
//! The format is documented in `numpy.lib.format`. Of it formats 1.0 and 2.0 are read, in C order and
//! little-endian. The values stay where the file has them until they are converted, so that a header that
//! lies about the shape costs nothing.

use bytes::Bytes;
use cleave_shared::tensor::{DType, HostTensor};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The array of a file.
pub fn parse(file: &Bytes) -> Result<HostTensor, String> {
    let (header, start) = header(file)?;
    let dtype = dtype(value(header, "descr")?)?;
    if !value(header, "fortran_order")?.starts_with("False") {
        return Err("is in Fortran order; save numpy.ascontiguousarray(x)".into());
    }
    let shape = shape(value(header, "shape")?)?;
    HostTensor::new(dtype, shape, file.slice(start..)).map_err(|e| e.to_string())
}

/// The header's text, and where the values begin.
fn header(file: &[u8]) -> Result<(&str, usize), String> {
    let short = || "is cut off in its header".to_string();
    let rest = file.strip_prefix(MAGIC).ok_or("is no NPY file; numpy.save writes one")?;
    let [major, _minor, rest @ ..] = rest else { return Err(short()) };
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(short)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(short)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => return Err(format!("is in format {major}; formats 1 and 2 are read")),
    };
    let header = rest.get(..length).ok_or_else(short)?;
    let text = std::str::from_utf8(header).map_err(|_| "has a header that is no text")?;
    Ok((text, file.len() - rest.len() + length))
}

/// What the header says behind a key, to the header's end.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let quoted = format!("'{key}':");
    match header.split_once(quoted.as_str()) {
        Some((_, rest)) => Ok(rest.trim_start()),
        None => Err(format!("has a header without {key}")),
    }
}

/// The element type: a quoted name. That of records is a list.
fn dtype(value: &str) -> Result<DType, String> {
    const READ: &str = "float32, float64, int32, int64 and uint8 are read";
    let quoted = value.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let Some((name, _)) = quoted else {
        return Err(format!("holds records; {READ}"));
    };
    match name {
        "<f4" => Ok(DType::F32),
        "<f8" => Ok(DType::F64),
        "<i4" => Ok(DType::I32),
        "<i8" => Ok(DType::I64),
        "|u1" => Ok(DType::U8),
        "|O" => Err(format!("holds Python objects, which are never loaded; {READ}")),
        _ if name.starts_with('>') => {
            let little = name.replace('>', "<");
            Err(format!("is big-endian ({name}); save x.astype(\"{little}\")"))
        }
        _ => Err(format!("holds values of type {name:?}; {READ}")),
    }
}

/// A tuple of extents; `()` for a single value.
fn shape(value: &str) -> Result<Vec<usize>, String> {
    let inside = value.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (inside, _) = inside.ok_or("has a header whose shape is no tuple")?;
    let extents = inside.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let read = |extent: &str| {
        let number = extent.parse::<usize>();
        number.map_err(|_| format!("has a header with the extent {extent:?}"))
    };
    extents.map(read).collect()
}

/// The same values in the type that a model takes: FP32 of all numbers, rounded to the nearest; INT64 of
/// whole ones only.
pub fn cast(array: HostTensor, to: DType) -> Result<HostTensor, String> {
    let (from, data) = (array.dtype(), array.data());
    let data = match (from, to) {
        _ if from == to => return Ok(array),
        (DType::F64, DType::F32) => each(data, |b| (f64::from_le_bytes(b) as f32).to_le_bytes()),
        (DType::I32, DType::F32) => each(data, |b| (i32::from_le_bytes(b) as f32).to_le_bytes()),
        (DType::I64, DType::F32) => each(data, |b| (i64::from_le_bytes(b) as f32).to_le_bytes()),
        (DType::U8, DType::F32) => each(data, |[b]| f32::from(b).to_le_bytes()),
        (DType::I32, DType::I64) => each(data, |b| i64::from(i32::from_le_bytes(b)).to_le_bytes()),
        (DType::U8, DType::I64) => each(data, |[b]| i64::from(b).to_le_bytes()),
        _ => {
            let (from, to) = (from.name(), to.name());
            return Err(format!("has {from} values, which are not made {to}; save whole numbers"));
        }
    };
    HostTensor::new(to, array.shape().to_vec(), data.into()).map_err(|e| e.to_string())
}

/// Converts elements of `N` bytes to elements of `M`.
fn each<const N: usize, const M: usize>(data: &[u8], one: impl Fn([u8; N]) -> [u8; M]) -> Vec<u8> {
    let (elements, _) = data.as_chunks::<N>();
    elements.iter().flat_map(|element| one(*element)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by numpy.save of NumPy 2.4.6 (FLOATS_V2 by numpy.lib.format.write_array).
    const FLOATS: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\
        \x20                                                         \
        \n\x00\x00\xc0?\x00\x00\x00\xc0";
    const FLOATS_V2: &[u8] =
        b"\x93NUMPY\x02\x00t\x00\x00\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\
        \x20                                                         \
        \n\x00\x00\x80?";
    const DOUBLES: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\
        \x20                                                           \
        \n\x9a\x99\x99\x99\x99\x99\xb9?";
    const IDS: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }\
        \x20                                                           \
        \n\x07\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff";
    const SHORT_IDS: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }\
        \x20                                                           \
        \n\x03\x00\x00\x00";
    const BYTE: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (), }\
        \x20                                                             \
        \n\t";
    const FORTRAN: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }\
        \x20                                                          \
        \n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    const BIG_ENDIAN: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }\
        \x20                                                           \
        \n\x00\x00\x00\x00";
    const RECORDS: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\
        \x20                                                  \
        \n\x00\x00\x00\x00";
    const FLAGS: &[u8] =
        b"\x93NUMPY\x01\x00v\x00{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }\
        \x20                                                           \
        \n\x01";

    fn read(file: &'static [u8]) -> Result<HostTensor, String> {
        parse(&Bytes::from_static(file))
    }

    #[test]
    fn numpy_s_files_are_read() {
        let floats = read(FLOATS).unwrap();
        assert_eq!((floats.shape(), floats.to_f32().unwrap()), (&[1, 2][..], vec![1.5, -2.0]));
        let floats = read(FLOATS_V2).unwrap();
        assert_eq!((floats.shape(), floats.to_f32().unwrap()), (&[1][..], vec![1.0]));
        let ids = read(IDS).unwrap();
        assert_eq!((ids.shape(), ids.to_i64().unwrap()), (&[2][..], vec![7, -1]));
        assert!(read(BYTE).unwrap().shape().is_empty());
    }

    #[test]
    fn values_become_what_the_model_takes() {
        let floats =
            |file: &'static [u8]| cast(read(file).unwrap(), DType::F32).unwrap().to_f32().unwrap();
        assert_eq!(floats(FLOATS), [1.5, -2.0]);
        assert_eq!(floats(DOUBLES), [0.1]);
        assert_eq!(floats(IDS), [7.0, -1.0]);
        assert_eq!(floats(SHORT_IDS), [3.0]);
        assert_eq!(floats(BYTE), [9.0]);
        let ids = |file: &'static [u8]| {
            cast(read(file).unwrap(), DType::I64).map(|ids| ids.to_i64().unwrap())
        };
        assert_eq!(ids(IDS), Ok(vec![7, -1]));
        assert_eq!(ids(SHORT_IDS), Ok(vec![3]));
        assert_eq!(ids(BYTE), Ok(vec![9]));
        let error = ids(FLOATS).unwrap_err();
        assert_eq!(error, "has FP32 values, which are not made INT64; save whole numbers");
    }

    #[test]
    fn what_is_not_read_says_why() {
        let refused = |file: &'static [u8]| read(file).unwrap_err();
        assert!(refused(FORTRAN).contains("Fortran order; save numpy.ascontiguousarray(x)"));
        assert_eq!(refused(BIG_ENDIAN), "is big-endian (>f4); save x.astype(\"<f4\")");
        assert!(refused(RECORDS).starts_with("holds records; float32"));
        assert!(refused(FLAGS).starts_with("holds values of type \"|b1\"; float32"));
        assert!(refused(b"1,2,3").starts_with("is no NPY file"));
        assert!(refused(b"\x93NUMPY\x03\x00").starts_with("is in format 3"));
        let objects = b"\x93NUMPY\x01\x00\x11\x00{'descr': '|O', }";
        assert!(refused(objects).starts_with("holds Python objects"), "{}", refused(objects));
    }

    #[test]
    fn a_file_that_is_cut_off_or_lies_is_refused_without_memory() {
        for length in 0..FLOATS.len() {
            read(&FLOATS[..length]).expect_err("something is missing");
        }
        let error = read(&FLOATS[..FLOATS.len() - 1]).unwrap_err();
        assert_eq!(error, "shape [1, 2] of FP32 needs 8 bytes, 7 were given");
        let header = |extents: &str| {
            let dictionary =
                format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({extents}), }}");
            let length = (dictionary.len() as u16).to_le_bytes();
            let parts =
                [MAGIC, [1, 0].as_slice(), length.as_slice(), dictionary.as_bytes()].concat();
            parse(&Bytes::from(parts)).unwrap_err()
        };
        assert!(header("1000000000000, 4").contains("0 were given"));
        assert!(header("18446744073709551615, 16").contains("more elements than memory"));
        assert!(header("1, 1, 1, 1, 1, 1, 1, 1, 1").contains("rank 9"));
        assert!(header("-1").contains("the extent \"-1\""));
        assert!(read(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}").is_err());
    }
}
