//! What a set of weights is called between the nodes.

use std::{fmt, str::FromStr};

use super::CheckpointError;

/// Weights that both nodes can name: the edge asks for a tail of exactly these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WeightsId {
    /// Initial weights of this seed: `seed:7`.
    Seed(u64),
    /// Weight files with this fingerprint, which each node has: `file:9f86d081884c7d65...`.
    File(String),
    /// State of a run after a step: `run:2026-11-24-a:500`.
    Run { run: String, step: u64 },
}

impl fmt::Display for WeightsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed(seed) => write!(f, "seed:{seed}"),
            Self::File(fingerprint) => write!(f, "file:{fingerprint}"),
            Self::Run { run, step } => write!(f, "run:{run}:{step}"),
        }
    }
}

impl FromStr for WeightsId {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let parts: Vec<&str> = text.split(':').collect();
        let parsed = match parts[..] {
            ["seed", seed] => seed.parse().ok().map(Self::Seed),
            ["file", fingerprint] if check_run_id(fingerprint).is_ok() => {
                Some(Self::File(fingerprint.into()))
            }
            ["run", run, step] if check_run_id(run).is_ok() => {
                step.parse().ok().map(|step| Self::Run { run: run.into(), step })
            }
            _ => None,
        };
        parsed.ok_or_else(|| CheckpointError::WeightsId(text.chars().take(100).collect()))
    }
}

/// Run ids become folder names, so they are kept to characters that mean nothing to a file system.
pub fn check_run_id(run: &str) -> Result<(), CheckpointError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=64).contains(&run.len()) && run.chars().all(allowed) {
        return Ok(());
    }
    Err(CheckpointError::RunId(run.chars().take(100).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_paths_are_refused() {
        for text in ["seed:7", "file:00ff", "run:a-1_b:500"] {
            assert_eq!(text.parse::<WeightsId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "seed:",
            "file:",
            "file:../x",
            "seed:-1",
            "run:../x:1",
            "run::1",
            "run:a:b",
            "run:a:1:2",
        ] {
            assert!(text.parse::<WeightsId>().is_err(), "{text}");
        }
    }
}
