//! One tensor of a request: its datatype, shape and values, checked against the model's input.
//!
//! Floats go through without a copy where they came as raw bytes. Token ids may be sent as INT32, which
//! many tokenizers give, and are widened. A value that the model has no meaning for, such as NaN or
//! an id outside the vocabulary, is refused with its position: it would come back as a confident wrong
//! answer, or not at all.

use bytes::Bytes;
use cleave_shared::{
    model::{Dim, Port},
    tensor::{DType, HostTensor, byte_length},
};

use super::{
    InferError, json_data,
    request::{Contents, Stated, bad, clip, shown, shown_shape},
};

/// The tensor that the request means, or the first thing that is wrong with it.
pub fn read(
    port: &Port,
    max_batch: usize,
    stated: Stated<'_>,
    contents: Contents<'_>,
) -> Result<HostTensor, InferError> {
    let name = shown(stated.name);
    let sent = datatype(port, stated)?;
    let shape = check_shape(port, max_batch, stated)?;
    let large = |e| InferError::BadInput(format!("input {name}: {e}; send a smaller batch"));
    let expected = byte_length(sent, &shape).map_err(large)?;
    byte_length(port.dtype, &shape).map_err(large)?;
    let count = expected / sent.size();
    let listed = |found: usize| match found == count {
        true => Ok(()),
        false => bad(format!("input {name} has {found} values, shape {shape:?} needs {count}")),
    };
    let json_error = |e: String| InferError::BadInput(format!("input {name}, data: {}", clip(&e)));
    let data = match (contents, port.dtype) {
        (Contents::Raw(bytes), _) => {
            let bytes = check_raw(&name, &shape, sent, expected, bytes)?;
            if sent == DType::I32 { widened(&bytes) } else { bytes }
        }
        (Contents::Json(json), DType::I64) => {
            let values = json_data::flatten::<i64>(json.get(), &shape).map_err(json_error)?;
            listed(values.len())?;
            integers(&values)
        }
        (Contents::Json(json), _) => {
            let values = json_data::flatten::<f32>(json.get(), &shape).map_err(json_error)?;
            listed(values.len())?;
            floats(&values)
        }
        (Contents::Integers(values), DType::I64) => {
            listed(values.len())?;
            integers(&values)
        }
        (Contents::Floats(values), DType::F32) => {
            listed(values.len())?;
            floats(&values)
        }
        _ => {
            let wanted = sent.name();
            return bad(format!("input {name} has values that are not {wanted}; send {wanted}"));
        }
    };
    match port.dtype {
        DType::I64 => check_range(port, &name, &shape, &data)?,
        _ => check_finite(&name, &shape, &data)?,
    }
    HostTensor::new(port.dtype, shape, data)
        .map_err(|e| InferError::BadInput(format!("input {name}: {e}")))
}

/// The element type that was sent, if the model's can be made from it.
fn datatype(port: &Port, stated: Stated<'_>) -> Result<DType, InferError> {
    let accepted: &[DType] = match port.dtype {
        DType::I64 => &[DType::I64, DType::I32],
        DType::F32 => &[DType::F32],
        _ => &[],
    };
    if let Some(dtype) = accepted.iter().find(|d| d.name() == stated.datatype) {
        return Ok(*dtype);
    }
    let (name, found) = (shown(stated.name), shown(stated.datatype));
    let wanted: Vec<&str> = accepted.iter().map(|d| d.name()).collect();
    bad(format!("input {name} has datatype {found}; send {}", wanted.join(" or ")))
}

/// The stated shape as `[batch, ...]`.
fn check_shape(
    port: &Port,
    max_batch: usize,
    stated: Stated<'_>,
) -> Result<Vec<usize>, InferError> {
    let refuse = |why: String| {
        let (name, found) = (shown(stated.name), shown_shape(stated.shape));
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(n) => format!(", {n}"),
            Dim::UpTo(n) => format!(", 1..{n}"),
        };
        let sample: String = port.shape.iter().map(extent).collect();
        bad(format!(
            "input {name} has shape {found}: {why}; send [batch{sample}] with batch 1 to {max_batch}"
        ))
    };
    let wanted = port.shape.len() + 1;
    let Some((&batch, sample)) = stated.shape.split_first() else {
        return refuse(format!("it has rank 0, not {wanted}"));
    };
    if sample.len() + 1 != wanted {
        return refuse(format!("it has rank {}, not {wanted}", sample.len() + 1));
    }
    let mut shape = vec![0; wanted];
    for (i, (&found, dim)) in sample.iter().zip(&port.shape).enumerate() {
        let extent = usize::try_from(found).unwrap_or(usize::MAX);
        match *dim {
            Dim::Fixed(n) if extent != n => {
                return refuse(format!("dimension {} is {found}, not {n}", i + 1));
            }
            Dim::UpTo(n) if !(1..=n).contains(&extent) => {
                return refuse(format!("dimension {} is {found}, not 1 to {n}", i + 1));
            }
            _ => shape[i + 1] = extent,
        }
    }
    match usize::try_from(batch) {
        Ok(n) if (1..=max_batch).contains(&n) => {
            shape[0] = n;
            Ok(shape)
        }
        _ => refuse(format!("the batch is {batch}")),
    }
}

fn check_raw(
    name: &str,
    shape: &[usize],
    dtype: DType,
    expected: usize,
    bytes: Bytes,
) -> Result<Bytes, InferError> {
    let found = bytes.len();
    if found == expected {
        return Ok(bytes);
    }
    let what = if found < expected { "truncated" } else { "too long" };
    let dtype = dtype.name();
    bad(format!(
        "input {name} has {what} raw contents: {found} bytes, shape {shape:?} of {dtype} needs {expected}"
    ))
}

fn floats(values: &[f32]) -> Bytes {
    values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn integers(values: &[i64]) -> Bytes {
    values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// INT32 as INT64.
fn widened(bytes: &[u8]) -> Bytes {
    let quads = bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    quads.flat_map(|v| i64::from(v).to_le_bytes()).collect::<Vec<u8>>().into()
}

/// Refuses NaN and infinity: they would spread through every layer and come back as a confident
/// wrong answer.
fn check_finite(name: &str, shape: &[usize], data: &[u8]) -> Result<(), InferError> {
    let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let Some((element, value)) = values.enumerate().find(|(_, v)| !v.is_finite()) else {
        return Ok(());
    };
    let what = if value.is_nan() { "NaN" } else { "infinity" };
    let index = index(shape, element);
    bad(format!(
        "input {name} has {what} at index {index:?} (element {element}); send finite values"
    ))
}

/// Refuses integers that the model has no meaning for, such as a token id outside the vocabulary.
fn check_range(port: &Port, name: &str, shape: &[usize], data: &[u8]) -> Result<(), InferError> {
    let Some(below) = port.below else { return Ok(()) };
    let longs =
        data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")));
    let Some((element, value)) = longs.enumerate().find(|(_, v)| !(0..below).contains(v)) else {
        return Ok(());
    };
    let (index, most) = (index(shape, element), below - 1);
    bad(format!(
        "input {name} has {value} at index {index:?} (element {element}); send 0 to {most}"
    ))
}

/// Where in a tensor of this shape an element is.
fn index(shape: &[usize], element: usize) -> Vec<usize> {
    let mut rest = element;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&d| {
            let i = rest % d.max(1);
            rest /= d.max(1);
            i
        })
        .collect();
    index.reverse();
    index
}
