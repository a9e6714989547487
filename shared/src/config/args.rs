//! The flags that both nodes' commands take.

use std::path::PathBuf;

use super::{Config, ConfigError, Overrides, SplitPoint, load};
use crate::telemetry::log;

/// Where to look when no file is named: the repository, then the container image.
const DEFAULT_FILES: [&str; 2] = ["config/cleave.toml", "/etc/cleave/cleave.toml"];

/// Configuration flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file [default: config/cleave.toml, then /etc/cleave/cleave.toml]
    #[arg(long, value_name = "FILE", env = "CLEAVE_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Overrides one key of the file, such as --set train.epochs=3; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
    /// Overrides `model`: a name such as lenet, or a .toml file; without --split-point all of it is in
    /// the cloud
    #[arg(long, value_name = "NAME", global = true)]
    pub model: Option<String>,
    /// Overrides `split_point`: a number of stages, or auto
    #[arg(long, value_name = "N", global = true)]
    pub split_point: Option<SplitPoint>,
    /// Overrides `link.profile`
    #[arg(long, value_name = "NAME", global = true)]
    pub link: Option<String>,
    /// Overrides `edge.cloud`
    #[arg(long, value_name = "URL", global = true)]
    pub cloud: Option<String>,
}

impl ConfigArgs {
    /// The file that [`ConfigArgs::load`] reads.
    pub fn file(&self) -> Result<PathBuf, ConfigError> {
        if let Some(file) = &self.config {
            return Ok(file.clone());
        }
        let found = DEFAULT_FILES.iter().map(PathBuf::from).find(|f| f.is_file());
        found.ok_or_else(|| ConfigError::NoFile(DEFAULT_FILES.join(" nor ")))
    }

    /// File, environment and flags, checked.
    pub fn load(&self) -> Result<Config, ConfigError> {
        load(&self.file()?, &self.overrides()?)
    }

    /// Takes changes of `log.level` in the file into force, for the life of the node.
    pub async fn follow_log_level(self) {
        let Ok(file) = self.file() else { return };
        log::follow(file, || Some(self.load().ok()?.log.level)).await;
    }

    /// The flags as keys and values.
    fn overrides(&self) -> Result<Overrides, ConfigError> {
        let mut all = Overrides::default();
        for pair in &self.set {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| ConfigError::Flag(pair.clone()))?;
            all.push(key.trim(), value.trim());
        }
        if let Some(model) = &self.model {
            all.push("model", model);
        }
        if let Some(split) = self.split_point {
            all.push("split_point", &split.to_string());
        }
        if let Some(profile) = &self.link {
            all.push("link.profile", profile);
        }
        if let Some(cloud) = &self.cloud {
            all.push("edge.cloud", cloud);
        }
        Ok(all)
    }

    /// The same flags as words, for a process that is started with the same configuration.
    pub fn to_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut push = |flag: &str, value: String| words.extend([flag.to_string(), value]);
        self.config.iter().for_each(|f| push("--config", f.display().to_string()));
        self.set.iter().for_each(|s| push("--set", s.clone()));
        self.model.iter().for_each(|m| push("--model", m.clone()));
        self.split_point.iter().for_each(|n| push("--split-point", n.to_string()));
        self.link.iter().for_each(|l| push("--link", l.clone()));
        self.cloud.iter().for_each(|c| push("--cloud", c.clone()));
        words
    }
}
