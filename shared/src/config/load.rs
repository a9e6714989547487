//! Puts the layers together, and turns every failure into one line with the key's path.

use std::path::Path;

use figment::{
    Figment, Source,
    error::Kind,
    providers::{Env, Format, Serialized, Toml},
    value::Value,
};

use super::Config;
use crate::link::Profile;

/// Keys of the top level that an environment variable may set (those without `__` in the name).
const TOP_LEVEL: [&str; 3] = ["split_point", "seed", "model"];

/// The folder of link profiles, beside the configuration file.
pub const PROFILES: &str = "links";

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("no configuration file: neither {0} is here; name one with --config FILE")]
    NoFile(String),
    #[error("{0}: cannot be read: {1}")]
    Unreadable(String, String),
    #[error("--set {0}: expected KEY=VALUE, such as --set train.epochs=3")]
    Flag(String),
    #[error("{place}: {key}: {problem}")]
    Key { place: String, key: String, problem: String },
}

/// Keys and values given as flags; they go over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(String, String)>);

impl Overrides {
    pub fn push(&mut self, key: &str, value: &str) {
        self.0.push((key.into(), value.into()));
    }

    fn layer(&self) -> Figment {
        self.0.iter().fold(Figment::new(), |layer, (key, value)| {
            let value: Value = value.parse().unwrap_or_else(|never| match never {});
            layer.merge(Serialized::default(key, value))
        })
    }
}

/// Reads `file`, then the environment, then `overrides`, and checks the result.
pub fn load(file: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|e| ConfigError::Unreadable(name.clone(), e.to_string()))?;
    // The text, not the path: figment would look for the file in parent folders as well.
    let mut layers = vec![
        Figment::new().merge(Toml::string(&text)),
        Figment::new().merge(environment()),
        overrides.layer(),
    ];
    // Whoever names the model names its split point, or has all of it in the cloud: a split point of a
    // lower layer is one of another model.
    for layer in &mut layers {
        if names_model(layer) && !layer.contains("split_point") {
            *layer = std::mem::take(layer).merge(Serialized::default("split_point", 0));
        }
    }
    let layers = layers.into_iter().fold(Figment::new(), |under, over| under.merge(over));
    let mut config: Config = layers.extract().map_err(|e| readable(e, &name))?;
    let refusal = |(key, problem): (String, String)| ConfigError::Key {
        place: place(&layers, &key, &name),
        key,
        problem,
    };
    config.check().map_err(refusal)?;
    config.data = config.data.for_model(&config.model, config.weights.tokenizer_file());
    let profiles = file.parent().unwrap_or(Path::new("")).join(PROFILES);
    config.link.resolved = Profile::find(&config.link.profile, Some(&profiles))
        .map_err(|error| refusal(("link.profile".into(), error.to_string())))?;
    Ok(config)
}

/// Whether a layer says which model it is, not only one of its sizes.
fn names_model(layer: &Figment) -> bool {
    layer.contains("model.family") || matches!(layer.find_value("model"), Ok(Value::String(..)))
}

/// `CLEAVE_A__B` is `a.b`. Other variables with the prefix are left alone: kubernetes, for one,
/// sets `CLEAVE_EDGE_PORT` for a service named `cleave-edge`.
fn environment() -> Env {
    Env::prefixed("CLEAVE_")
        .filter(|k| k.as_str().contains("__") || TOP_LEVEL.iter().any(|t| k == *t))
        .split("__")
}

/// Which layer a key's value came from.
fn place(layers: &Figment, key: &str, file: &str) -> String {
    match layers.find_metadata(key) {
        Some(m) if m.name.contains("environment") => "environment".into(),
        Some(m) if m.source.as_ref().is_some_and(|s| matches!(s, Source::Code(_))) => "flag".into(),
        _ => file.into(),
    }
}

fn readable(error: figment::Error, file: &str) -> ConfigError {
    let metadata_name = error.metadata.as_ref().map(|m| m.name.to_string()).unwrap_or_default();
    let place = if metadata_name.contains("environment") {
        "environment".to_string()
    } else if error.metadata.as_ref().is_some_and(|m| {
        matches!(m.source, Some(Source::Code(_))) && !metadata_name.contains("TOML")
    }) {
        "flag".to_string()
    } else {
        file.to_string()
    };
    let mut path = error.path.clone();
    let problem = match &error.kind {
        Kind::UnknownField(name, known) => {
            if path.last().is_none_or(|last| last != name) {
                path.push(name.clone());
            }
            format!("unknown key; known here: {}", known.join(", "))
        }
        kind => kind.to_string(),
    };
    let key = if path.is_empty() { "file".into() } else { path.join(".") };
    // One line: a TOML syntax error comes with a drawing of the place.
    let problem = problem.split_whitespace().collect::<Vec<_>>().join(" ");
    ConfigError::Key { place, key, problem }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
