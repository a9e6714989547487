//! Texts of a request, in place of token ids: BYTES `[batch]`, each element UTF-8.
//!
//! Raw, an element is its length (four bytes, little-endian) and its bytes, as Triton has it; typed, an
//! entry of `bytes_contents`; in JSON, a string.

use bytes::Bytes;

use super::{
    InferError,
    request::{Contents, Stated, TEXT_DTYPE, bad, clip, shown, shown_shape},
};

/// Longest text, bytes: that of a long book. A tokenizer reads all of a text before it is cut to the tokens that the model
/// takes, on a thread that runs the model.
const LONGEST: usize = 1 << 20;

/// One text for each sample, or the first thing that is wrong with them.
pub fn read(
    max_batch: usize,
    stated: Stated<'_>,
    contents: Contents<'_>,
) -> Result<Vec<String>, InferError> {
    let name = shown(stated.name);
    if stated.datatype != TEXT_DTYPE {
        let found = shown(stated.datatype);
        return bad(format!("input {name} has datatype {found}; send {TEXT_DTYPE}"));
    }
    let batch = match *stated.shape {
        [n] => usize::try_from(n).ok().filter(|n| (1..=max_batch).contains(n)),
        _ => None,
    };
    let Some(batch) = batch else {
        let found = shown_shape(stated.shape);
        return bad(format!(
            "input {name} has shape {found}; send [batch] with batch 1 to {max_batch}"
        ));
    };
    let texts = match contents {
        Contents::Raw(bytes) => decoded(&name, elements(&name, bytes, batch)?)?,
        Contents::Texts(elements) => decoded(&name, elements)?,
        Contents::Json(json) => serde_json::from_str::<Vec<String>>(json.get()).map_err(|e| {
            let problem = clip(&e.to_string());
            InferError::BadInput(format!("input {name}, data: {problem}; send a list of strings"))
        })?,
        _ => return bad(format!("input {name} has values that are not {TEXT_DTYPE}; send texts")),
    };
    if texts.len() != batch {
        let found = texts.len();
        return bad(format!("input {name} has {found} texts, shape [{batch}] needs {batch}"));
    }
    for (i, text) in texts.iter().enumerate() {
        check_length(&name, i, text)?;
    }
    Ok(texts)
}

/// Refuses a text that is longer than any model needs; it is the one at this place of the input.
pub fn check_length(input: &str, place: usize, text: &str) -> Result<(), InferError> {
    match text.len() {
        ..=LONGEST => Ok(()),
        bytes => {
            bad(format!("input {input}: text {place} has {bytes} bytes; send at most {LONGEST}"))
        }
    }
}

/// Elements behind their lengths; more than `most` are not read.
fn elements(name: &str, mut bytes: Bytes, most: usize) -> Result<Vec<Bytes>, InferError> {
    let mut all = Vec::new();
    while !bytes.is_empty() && all.len() <= most {
        let length = bytes.first_chunk::<4>().map(|b| u32::from_le_bytes(*b) as usize);
        match length {
            Some(length) if length <= bytes.len() - 4 => {
                let mut element = bytes.split_to(4 + length);
                all.push(element.split_off(4));
            }
            _ => {
                let at = all.len();
                return bad(format!(
                    "input {name} has truncated raw contents: text {at} is longer than what is left"
                ));
            }
        }
    }
    Ok(all)
}

fn decoded(name: &str, elements: Vec<Bytes>) -> Result<Vec<String>, InferError> {
    let text = |(i, bytes): (usize, Bytes)| {
        String::from_utf8(bytes.into())
            .map_err(|_| InferError::BadInput(format!("input {name}: text {i} is not UTF-8")))
    };
    elements.into_iter().enumerate().map(text).collect()
}
