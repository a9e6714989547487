//! Files that are there whole or not at all, whatever happens in between.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::CheckpointError;

/// As far as the process's mask leaves it: the system's default.
const ANYBODY: u32 = 0o666;

/// Writes to a temporary name beside `path`, flushes it to the disk, and renames it. Of processes that write the same
/// file at the same time, one's is there in the end, and whole.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    write_atomic_as(path, bytes, ANYBODY)
}

/// The same with these permissions, from the beginning.
pub fn write_atomic_as(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CheckpointError> {
    let temporary = path.with_extension(format!("{}.partial", std::process::id()));
    // What is left of a process that was killed may have other permissions.
    let _ = fs::remove_file(&temporary);
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
    let written = created.and_then(|file| fill(file, bytes));
    let written = written.and_then(|()| fs::rename(&temporary, path));
    written.and_then(|()| sync_parent(path)).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        io_error(path, e)
    })
}

pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fill(File::create(path)?, bytes)
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
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
