//! What is made of files, made again when they change.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::SecurityError;
use crate::stamp::Stamp;

/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

type Make<T> = Box<dyn Fn() -> Result<T, SecurityError> + Send + Sync>;

/// A value from files, so that certificates and tokens are exchanged without a restart. Files that are broken
/// leave the value as it is, with a line in the log.
pub struct Rotating<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamp: Stamp,
    looked: Instant,
}

impl<T> Rotating<T> {
    /// Refused if the files are broken from the beginning.
    pub fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, SecurityError> + Send + Sync + 'static,
    ) -> Result<Self, SecurityError> {
        // Before the files are read: what is written meanwhile is seen the next time.
        let stamp = Stamp::of(files.iter().cloned());
        let state = State { value: Arc::new(make()?), stamp, looked: Instant::now() };
        Ok(Self { files, make: Box::new(make), state: Mutex::new(state) })
    }

    /// The newest. Looks at the files if that was not done for a second.
    pub fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let stamp = Stamp::of(self.files.iter().cloned());
            if stamp != state.stamp {
                state.stamp = stamp;
                self.renew(&mut state);
            }
        }
        state.value.clone()
    }

    fn renew(&self, state: &mut State<T>) {
        let files: Vec<_> = self.files.iter().map(|f| f.display().to_string()).collect();
        match (self.make)() {
            Ok(value) => {
                state.value = Arc::new(value);
                tracing::info!(?files, "read again: they have changed");
            }
            Err(error) => tracing::warn!("{error}; what was read before stays in force"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("value");
        fs::write(&file, "1").unwrap();
        let path = file.clone();
        let make = move || {
            let text = fs::read_to_string(&path).map_err(|e| SecurityError::file(&path, e))?;
            text.parse::<u32>().map_err(|e| SecurityError::file(&path, e))
        };
        let value = Rotating::new(vec![file.clone()], make).unwrap();
        let later = |text: &str| {
            fs::write(&file, text).unwrap();
            value.state.lock().unwrap().looked -= LOOK;
            *value.get()
        };
        assert_eq!(*value.get(), 1);
        assert_eq!(later("22"), 22);
        assert_eq!(later("no number"), 22);
        assert_eq!(later("4444"), 4444);
        fs::remove_file(&file).unwrap();
        value.state.lock().unwrap().looked -= LOOK;
        assert_eq!(*value.get(), 4444);
    }
}
