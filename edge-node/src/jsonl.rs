//! Files of JSON lines, which grow while something runs that may be killed at any time.
//!
//! Each line is one write, so that a kill leaves whole lines, or the last one cut short. Who reads passes over that one; who
//! goes on writing cuts it off first: the next line would be joined to it, and lost as well.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use cleave_shared::checkpoint::write_atomic;
use serde::{Serialize, de::DeserializeOwned};

/// A file that is written at its end.
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// A new file, or one that goes on behind its last whole line.
    pub fn open(path: PathBuf) -> Result<Self, String> {
        let file = append(&path).map_err(|e| explain(&path, &e))?;
        Ok(Self { path, file })
    }

    /// Adds a line; gives its bytes.
    pub fn write<T: Serialize>(&mut self, value: &T) -> Result<u64, String> {
        let bytes = line(value);
        self.file.write_all(&bytes).map_err(|e| explain(&self.path, &e))?;
        Ok(bytes.len() as u64)
    }

    /// The lines that are there, as [`read`] gives them.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, String> {
        read(&self.path)
    }

    /// Has these lines and no others in the file; gives their bytes.
    pub fn replace<T: Serialize>(&mut self, values: &[T]) -> Result<u64, String> {
        let bytes: Vec<u8> = values.iter().flat_map(line).collect();
        if fs::read(&self.path).ok().as_ref() != Some(&bytes) {
            write_atomic(&self.path, &bytes).map_err(|e| e.to_string())?;
            self.file = append(&self.path).map_err(|e| explain(&self.path, &e))?;
        }
        Ok(bytes.len() as u64)
    }
}

/// The lines of a file in their order, without those that are something else; none if there is no file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(explain(path, &e)),
    };
    // Not read as text: a line may have been cut in the middle of a character.
    let lines = bytes.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// A value as its line, with the line's end.
pub fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("plain data");
    bytes.push(b'\n');
    bytes
}

fn append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = end_of_lines(&file, length)?;
    if whole < length {
        file.set_len(whole)?;
    }
    Ok(file)
}

/// Where the last whole line of so many bytes ends.
fn end_of_lines(file: &File, length: u64) -> io::Result<u64> {
    let mut block = [0; 4096];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn explain(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_left_of_a_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        // Longer than what is looked at at once, and not as text.
        let long = [b'x'; 10_000];
        let cases: [(&[u8], &[u8]); 6] = [
            (b"", b""),
            (b"", b"{\"a"),
            (b"1\n2\n", b""),
            (b"1\n2\n", b"3"),
            (b"1\n2\n", &long),
            (b"\"\xc3\xa9\"\n", b"\"\xc3"),
        ];
        for (whole, torn) in cases {
            fs::write(&path, [whole, torn].concat()).unwrap();
            JsonLines::open(path.clone()).unwrap().write(&4).unwrap();
            assert_eq!(fs::read(&path).unwrap(), [whole, &b"4\n"[..]].concat());
        }
    }

    #[test]
    fn lines_are_read_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        assert_eq!(read::<u64>(&path), Ok(vec![]));
        fs::write(&path, b"1\nnone\n\n2\n\"\xc3").unwrap();
        assert_eq!(read(&path), Ok(vec![1, 2]));
        let mut lines = JsonLines::open(path.clone()).unwrap();
        assert_eq!(lines.replace(&[1, 20]), Ok(5));
        assert_eq!(lines.write(&3), Ok(2));
        assert_eq!(lines.read(), Ok(vec![1, 20, 3]));
        // A folder is no file.
        let problem = read::<u64>(dir.path()).unwrap_err();
        assert!(problem.starts_with(&dir.path().display().to_string()), "{problem}");
    }
}
