//! Log lines, and which of them are written.

use std::{
    io::{IsTerminal, stderr},
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::stamp::Stamp;

/// How often the configuration file is looked at for another level.
const TICK: Duration = Duration::from_secs(1);
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter in force; none where the level is not ours to change.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Text,
    /// One JSON object a line, for a collector.
    Json,
}

/// Logs to standard error, what `level` lets through; `RUST_LOG`, where it is set, is in force instead of it.
pub fn init(format: LogFormat, level: &str) {
    let own = EnvFilter::try_from_default_env();
    let is_ours = own.is_err();
    let (filter, handle) = reload::Layer::new(own.unwrap_or_else(|_| EnvFilter::new(level)));
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let lines = match format {
        // A file is read without a terminal, which would take the colours away.
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second call (tests, the demo) keeps the first subscriber.
    let installed = tracing_subscriber::registry().with(filter).with(lines).try_init();
    if is_ours && installed.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// What is wrong with a level: one of [`LEVELS`], and others for parts of the program, as `info,h2=warn`.
pub fn check_level(level: &str) -> Result<(), String> {
    let known = |word: &str| LEVELS.contains(&word);
    // A filter takes a misspelt level for the name of a module, and shows nothing else.
    let words = level.split(',').all(|part| part.rsplit('=').next().is_some_and(known));
    match words && EnvFilter::try_new(level).is_ok() {
        true => Ok(()),
        false => Err(format!(
            "{level:?}: expected {}, alone or with others for modules, as info,h2=warn",
            LEVELS.join(", ")
        )),
    }
}

/// The most that is written now.
pub fn level() -> LevelFilter {
    LevelFilter::current()
}

/// Takes another level into force.
pub fn set_level(level: &str) -> Result<(), String> {
    check_level(level)?;
    let handle = FILTER.get().ok_or("RUST_LOG is set, and is in force instead of other levels")?;
    handle.reload(EnvFilter::new(level)).map_err(|e| e.to_string())?;
    tracing::info!(level, "log level changed");
    Ok(())
}

/// Takes another level into force whenever `file` has changed and `level` reads another one from it. Runs for the life
/// of the node.
pub async fn follow(file: PathBuf, level: impl Fn() -> Option<String>) {
    if FILTER.get().is_none() {
        return;
    }
    let stamp = || Stamp::of([file.clone()]);
    let (mut seen, mut in_force) = (stamp(), level());
    loop {
        tokio::time::sleep(TICK).await;
        let now = stamp();
        if now == seen {
            continue;
        }
        seen = now;
        // A file that cannot be read now is somebody else's complaint.
        let Some(wanted) = level() else { continue };
        if in_force.as_ref() != Some(&wanted) && set_level(&wanted).is_ok() {
            in_force = Some(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_that_are_known() {
        for good in ["info", "off", "warn,h2=debug", "info,cleave_shared::link=trace"] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        for bad in ["", "debgu", "info,", "info,h2=loud", "info;debug", "info, h2=warn", "h2"] {
            let refused = check_level(bad).unwrap_err();
            assert!(refused.contains("expected off, error, warn"), "{refused}");
        }
    }
}
