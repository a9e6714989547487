//! Whether files have changed, without reading them: what follows files looks every second, in many processes.

use std::{
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// File systems stamp coarsely: a file that was written this short a time ago may be written again with the same stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells two states of a few files apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<State>)>);

/// Of a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    modified: SystemTime,
    bytes: u64,
    /// A file that was replaced is another one.
    inode: u64,
}

impl Stamp {
    /// A file that is not there is a state as well.
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let state = |file: &PathBuf| {
            let found = file.metadata().ok()?;
            Some(State { modified: found.modified().ok()?, bytes: found.len(), inode: found.ino() })
        };
        Self(files.into_iter().map(|file| (file.clone(), state(&file))).collect())
    }

    /// Whether a later look at the same files that finds the same stamp has nothing to read.
    pub fn is_settled(&self) -> bool {
        let times = self.0.iter().filter_map(|(_, state)| state.map(|state| state.modified));
        times.into_iter().all(|time| time.elapsed().is_ok_and(|ago| ago > SETTLED))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_change_is_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let stamp = || Stamp::of([file.clone()]);
        let absent = stamp();
        assert!(absent.is_settled());
        fs::write(&file, "1").unwrap();
        let written = stamp();
        assert_ne!(written, absent);
        assert!(!written.is_settled(), "it may be written again within the same tick of the clock");
        let old = fs::File::options().write(true).open(&file).unwrap();
        old.set_modified(SystemTime::now() - 2 * SETTLED).unwrap();
        assert!(stamp().is_settled() && stamp() == stamp());
        let before = stamp();
        // Replaced by one of the same length and time.
        let other = folder.path().join("b");
        fs::write(&other, "2").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(other, &file).unwrap();
        assert_ne!(stamp(), before);
    }
}
