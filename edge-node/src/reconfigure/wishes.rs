//! Settings that someone asks for while the edge serves: over those of the file, as flags are.

use std::time::Duration;

use cleave_shared::config::{Config, ConfigArgs, ConfigError, SplitPoint};
use tokio::sync::{mpsc, oneshot};

/// Wishes that may wait for those before them.
pub const QUEUE: usize = 8;
/// How long a change may take: weights that follow the cut cross the link.
const PATIENCE: Duration = Duration::from_secs(60);

/// A setting that may be asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    SplitPoint(SplitPoint),
    /// A profile by name.
    LinkProfile(String),
    /// What the configuration and the weights say now, without waiting for the next look at them.
    Newest,
}

/// A setting, and who waits until it is in force.
#[derive(Debug)]
pub struct Wish {
    pub setting: Setting,
    /// Why it is not in force is one line.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// Why a wish is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfulfilled {
    #[error("other changes are under way; try again later")]
    Busy,
    #[error("{0}")]
    Refused(String),
    #[error("the edge is ending")]
    Ending,
    #[error("not in force after {} s; it may be later", PATIENCE.as_secs())]
    Late,
}

/// Asks for a setting, and returns when it is in force.
pub async fn ask(wishes: &mpsc::Sender<Wish>, setting: Setting) -> Result<(), Unfulfilled> {
    let (done, outcome) = oneshot::channel();
    wishes.try_send(Wish { setting, done }).map_err(|_| Unfulfilled::Busy)?;
    match tokio::time::timeout(PATIENCE, outcome).await {
        Ok(Ok(outcome)) => outcome.map_err(Unfulfilled::Refused),
        Ok(Err(_)) => Err(Unfulfilled::Ending),
        Err(_) => Err(Unfulfilled::Late),
    }
}

/// The wishes in force. Each lasts until someone changes the same setting of the configuration: the newest word counts.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    split_point: Option<Over<SplitPoint>>,
    profile: Option<Over<String>>,
}

#[derive(Debug, Clone)]
struct Over<T> {
    wished: T,
    /// What the configuration said then.
    under: T,
}

impl<T: PartialEq> Over<T> {
    fn forget(wish: &mut Option<Self>, now: &T) {
        wish.take_if(|wish| wish.under != *now);
    }
}

impl Wishes {
    pub fn add(&mut self, setting: Setting, args: &ConfigArgs) -> Result<(), String> {
        let under = args.load().map_err(|e| e.to_string())?;
        match setting {
            Setting::Newest => {}
            Setting::SplitPoint(wished) => {
                self.split_point = Some(Over { wished, under: under.split_point });
            }
            Setting::LinkProfile(wished) => {
                // A name only: who may switch profiles may not read files of this machine.
                if wished.is_empty() || wished.contains(['/', '\\']) || wished.ends_with(".toml") {
                    return Err(format!("{wished:?} is not the name of a link profile"));
                }
                self.profile = Some(Over { wished, under: under.link.profile });
            }
        }
        Ok(())
    }

    /// The configuration with the wishes in it.
    pub fn load(&mut self, args: &ConfigArgs) -> Result<Config, String> {
        let asked = args.load().map_err(|e| e.to_string())?;
        Over::forget(&mut self.split_point, &asked.split_point);
        Over::forget(&mut self.profile, &asked.link.profile);
        if self.split_point.is_none() && self.profile.is_none() {
            return Ok(asked);
        }
        let mut args = args.clone();
        if let Some(Over { wished, .. }) = self.split_point {
            args.split_point = Some(wished);
        }
        if let Some(Over { wished, .. }) = &self.profile {
            args.link = Some(wished.clone());
        }
        args.load().map_err(|error| match error {
            // No layer's fault.
            ConfigError::Key { key, problem, .. } => format!("{key}: {problem}"),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_wish_lasts_until_the_file_says_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cleave.toml");
        let write = |split, profile| {
            let text = format!("split_point = {split}\n[link]\nprofile = \"{profile}\"\n");
            fs::write(&file, text).unwrap();
        };
        write(4, "lte");
        let args = ConfigArgs { config: Some(file.clone()), ..ConfigArgs::default() };
        let mut wishes = Wishes::default();
        let in_force = |wishes: &mut Wishes| {
            let config = wishes.load(&args).unwrap();
            (config.split(), config.link.profile.clone(), config.link_profile().name)
        };
        assert_eq!(in_force(&mut wishes), (4, "lte".into(), "lte".into()));
        wishes.add(Setting::SplitPoint(SplitPoint::Fixed(2)), &args).unwrap();
        wishes.add(Setting::LinkProfile("wifi".into()), &args).unwrap();
        assert_eq!(in_force(&mut wishes), (2, "wifi".into(), "wifi".into()));
        write(4, "none");
        assert_eq!(in_force(&mut wishes), (2, "none".into(), "none".into()));
        write(5, "lte");
        assert_eq!(in_force(&mut wishes), (5, "lte".into(), "lte".into()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cleave.toml");
        fs::write(&file, "split_point = 4\n").unwrap();
        let args = ConfigArgs { config: Some(file), ..ConfigArgs::default() };
        for path in ["", "../lte", "a\\b", "lte.toml"] {
            let refused = Wishes::default().add(Setting::LinkProfile(path.into()), &args);
            assert!(refused.unwrap_err().contains("not the name"), "{path}");
        }
        let mut wishes = Wishes::default();
        wishes.add(Setting::SplitPoint(SplitPoint::Fixed(9)), &args).unwrap();
        let refused = wishes.load(&args).unwrap_err();
        assert!(refused.starts_with("split_point: 9 is out of range"), "{refused}");
        let mut wishes = Wishes::default();
        wishes.add(Setting::LinkProfile("7g".into()), &args).unwrap();
        let refused = wishes.load(&args).unwrap_err();
        assert!(refused.starts_with("link.profile: \"7g\": unknown profile; known:"), "{refused}");
    }
}
