//! A file as the values of one input, by what its name ends in.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use cleave_shared::tensor::HostTensor;

use super::{
    csv,
    image::{self, Pixels},
    input::Input,
    npy,
};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Image,
    Csv,
    Npy,
    Text,
}

/// `-` is CSV from the standard input.
pub fn kind(path: &Path) -> Result<Kind, String> {
    if path == Path::new("-") {
        return Ok(Kind::Csv);
    }
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "png" | "jpg" | "jpeg" | "ppm" | "pgm" => Ok(Kind::Image),
        "csv" => Ok(Kind::Csv),
        "npy" => Ok(Kind::Npy),
        "txt" => Ok(Kind::Text),
        _ => Err(at(path, "is of no kind that is read: .png, .jpg, .ppm, .csv, .npy, .txt")),
    }
}

/// The tensor in a file, `[batch, ...]`, of the input's type.
pub fn tensor(path: &Path, input: &Input, pixels: &Pixels) -> Result<HostTensor, String> {
    let kind = kind(path)?;
    let file = bytes(path)?;
    let read = match kind {
        Kind::Image => image::parse(&file, input, pixels),
        Kind::Csv => text_of(&file).and_then(|text| csv::parse(text, input)),
        Kind::Npy => npy::parse(&file)
            .and_then(|array| npy::cast(array, input.dtype))
            .and_then(|array| input.batch(array)),
        Kind::Text => Err(format!("is text, and {input} takes none; send it without --input")),
    };
    read.map_err(|problem| at(path, &problem))
}

/// The whole of a text file, without the end of its last line.
pub fn text(path: &Path) -> Result<String, String> {
    let file = bytes(path)?;
    let text = text_of(&file).map_err(|problem| at(path, &problem))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_string())
}

fn bytes(path: &Path) -> Result<Bytes, String> {
    let read = if path == Path::new("-") {
        let mut all = Vec::new();
        io::stdin().lock().read_to_end(&mut all).map(|_| all)
    } else {
        fs::read(path)
    };
    read.map(Bytes::from).map_err(|e| at(path, &format!("cannot be read: {e}")))
}

fn text_of(file: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(file).map_err(|e| format!("is not UTF-8 text at byte {}", e.valid_up_to()))
}

/// A problem with the file that has it.
pub fn at(path: &Path, problem: &str) -> String {
    format!("{}: {problem}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_s_end_says_what_a_file_holds() {
        let kind = |name: &str| kind(Path::new(name));
        assert_eq!(kind("a/Scan.JPEG"), Ok(Kind::Image));
        assert_eq!(kind("x.npy"), Ok(Kind::Npy));
        assert_eq!(kind("-"), Ok(Kind::Csv));
        assert!(kind("a.png/x").unwrap_err().starts_with("a.png/x: is of no kind"));
    }
}
