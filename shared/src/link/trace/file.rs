//! A trace file as text, without trusting its size or its bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::TraceError;

/// Largest file read or written, bytes: days of a mobile network, and still in memory at once.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// The whole file. `path` may be a pipe, whose length only shows while reading.
pub(super) fn read(path: &Path) -> Result<String, TraceError> {
    let unreadable =
        |e| TraceError::new(path.display(), format!("cannot be read: {e}"), "give a readable file");
    let mut file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(too_large(path));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(path));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        let file = path.display().to_string();
        TraceError::at_line(&file, line, "not UTF-8 text", "save the trace as plain text")
    })
}

/// The lines that say something, with their numbers: no comments, no blank ones.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let numbered = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The name of a trace that came from this file.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn too_large(path: &Path) -> TraceError {
    let mib = MAX_FILE_BYTES / 1024 / 1024;
    let what = format!("larger than {mib} MiB");
    TraceError::new(path.display(), what, "cut the trace or take longer steps")
}
