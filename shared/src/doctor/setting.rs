//! The configuration, the model that it names, and the machine that is to run it.

use std::{fs, thread};

use super::{Finding, place::folder};
use crate::{
    config::{Config, ConfigArgs},
    model::ModelSpec,
};

/// The configuration and what both nodes look at first; what is wrong with it, for nothing else means anything without it.
/// `threads`: the node's compute threads, and the helpers of each.
pub fn begin(
    args: &ConfigArgs,
    threads: impl FnOnce(&Config) -> (usize, usize),
) -> Result<(Config, Vec<Finding>), Finding> {
    let (config, found) = configuration(args)?;
    let (threads, kernel_threads) = threads(&config);
    let findings = vec![
        found,
        model(&config),
        machine(&config, threads, kernel_threads),
        folder("runs", "runs.dir", &config.runs.dir),
    ];
    Ok((config, findings))
}

/// The configuration, or what is wrong with it; which keys come from where is said as well.
fn configuration(args: &ConfigArgs) -> Result<(Config, Finding), Finding> {
    const CHECK: &str = "configuration";
    let config = args.load().map_err(|e| Finding::error(CHECK, e.to_string()))?;
    let file = args.file().map(|file| file.display().to_string()).unwrap_or_default();
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut over: Vec<String> = variables.filter(|name| is_setting(name)).collect();
    over.sort();
    let over = match over.is_empty() {
        true => String::new(),
        false => format!(", and {} from the environment", over.join(", ")),
    };
    Ok((config, Finding::ok(CHECK, format!("{file}{over}"))))
}

/// Whether a variable of the environment sets a key.
fn is_setting(name: &str) -> bool {
    let top = ["CLEAVE_MODEL", "CLEAVE_SEED", "CLEAVE_SPLIT_POINT"];
    top.contains(&name) || name.starts_with("CLEAVE_") && name[7..].contains("__")
}

/// The model and where it is cut.
fn model(config: &Config) -> Finding {
    const CHECK: &str = "model";
    let spec: &ModelSpec = &config.model;
    let found = match spec.inspect() {
        Ok(found) => found,
        Err(error) => return Finding::error(CHECK, error.to_string()),
    };
    let millions = found.parameters as f64 / 1e6;
    let what = format!("{}, {millions:.2} million parameters", spec.family_name());
    if config.split_point.is_auto() {
        return Finding::ok(CHECK, format!("{what}; the planner chooses the split point"));
    }
    let split = config.split();
    let cut = &found.cuts[split];
    let stages = found.stages.len();
    let place = match (split, &cut.after) {
        (0, _) => "all of it runs in the cloud, which gets the inputs themselves".into(),
        (n, _) if n == stages => "all of it runs on the edge".into(),
        (_, Some(after)) => format!("cut behind {after} ({split} of {stages} stages)"),
        (_, None) => format!("cut behind {split} of {stages} stages"),
    };
    // Whether another cut is better is the planner's question.
    Finding::ok(CHECK, format!("{what}; {place}, {} bytes cross for each sample", cut.bytes))
}

/// Cores for `threads` compute threads of so many helpers each, and memory for the model.
fn machine(config: &Config, threads: usize, kernel_threads: usize) -> Finding {
    const CHECK: &str = "machine";
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    let wanted = threads * if kernel_threads == 0 { cores } else { kernel_threads };
    let needed = config.model.inspect().map_or(0, |found| found.parameters * 4);
    let free = memory_available();
    let mib = |bytes: u64| bytes / (1 << 20);
    let mut what = format!("{cores} cores, {threads} compute threads");
    if let Some(free) = free {
        what += &format!(", {} MiB of memory free", mib(free));
    }
    if free.is_some_and(|free| needed > free) {
        let needed = mib(needed);
        return Finding::warning(
            CHECK,
            what,
            format!("the weights take {needed} MiB; use a smaller model, or quantize.weights"),
        );
    }
    // Every thread with helpers on all cores is how it comes; more threads than cores is not.
    match threads > cores || kernel_threads > 0 && wanted > cores {
        true => Finding::warning(
            CHECK,
            what,
            format!("{wanted} threads compute at once; set threads or kernel_threads lower"),
        ),
        false => Finding::ok(CHECK, what),
    }
}

/// What can still be taken, bytes; none where the system does not say.
fn memory_available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::SplitPoint, doctor::Verdict};

    #[test]
    fn variables_that_set_keys_are_told_apart() {
        for (name, sets) in [
            ("CLEAVE_MODEL", true),
            ("CLEAVE_EDGE__CLOUD", true),
            ("CLEAVE_EDGE_PORT", false),
            ("CLEAVE_CONFIG", false),
            ("PATH", false),
        ] {
            assert_eq!(is_setting(name), sets, "{name}");
        }
    }

    #[test]
    fn every_cut_has_a_place() {
        let at =
            |split| model(&Config { split_point: SplitPoint::Fixed(split), ..Config::default() });
        let stages = Config::default().model.stage_count();
        let told = |split, words: &str| {
            let found = at(split);
            assert!(found.verdict == Verdict::Ok && found.found.contains(words), "{found:?}");
        };
        told(0, "in the cloud, which gets the inputs themselves");
        told(1, "cut behind conv1 (1 of 6 stages), 8192 bytes cross");
        told(stages, "all of it runs on the edge, 0 bytes");
    }

    #[test]
    fn too_many_threads_are_a_warning() {
        assert_eq!(machine(&Config::default(), 100_000, 1).verdict, Verdict::Warning);
        assert_eq!(machine(&Config::default(), 1, 1).verdict, Verdict::Ok);
    }
}
