//! Files that are there whole or not at all, whatever happens in between.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use super::CheckpointError;

/// Writes to a temporary name beside `path`, flushes it to the disk, and renames it. Of processes that write the same
/// file at the same time, one's is there in the end, and whole.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let temporary = path.with_extension(format!("{}.partial", std::process::id()));
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    written.and_then(|()| sync_parent(path)).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        io_error(path, e)
    })
}

pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The rename itself survives a power cut only once the folder is on the disk.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { path: path.display().to_string(), source }
}
