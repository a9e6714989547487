//! Trace and log settings by Triton's names.
//!
//! Traces go to the collector of `trace.otlp`, so that of Triton's trace settings only the level and the rate can be changed.
//! Log levels include those above them: warnings are written wherever infos are.

use std::collections::BTreeMap;

use cleave_shared::telemetry::{log, trace};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::LevelFilter;

use super::super::{InferError, request::shown};

/// Values by name: several are a list, as Triton has them.
pub type TraceSettings = BTreeMap<&'static str, Vec<String>>;
pub type LogSettings = BTreeMap<&'static str, LogValue>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogValue {
    Flag(bool),
    Number(u32),
    Text(String),
}

const LEVEL: &str = "trace_level";
const RATE: &str = "trace_rate";

fn bad<T>(why: String) -> Result<T, InferError> {
    Err(InferError::BadInput(why))
}

pub fn trace_settings() -> TraceSettings {
    let share = trace::share();
    let level = if share.is_some() { "TIMESTAMPS" } else { "OFF" };
    let rate = share.or(trace::configured_share()).unwrap_or(0.0);
    // One in so many; none at all is one in 0.
    let rate = if rate > 0.0 { (1.0 / rate).round() } else { 0.0 };
    let one = |value: String| vec![value];
    BTreeMap::from([
        (LEVEL, one(level.into())),
        (RATE, one(rate.to_string())),
        ("trace_count", one("-1".into())),
        ("log_frequency", one("0".into())),
        ("trace_file", one(String::new())),
        ("trace_mode", one("opentelemetry".into())),
    ])
}

/// Takes changes into force, all or none. A setting without values goes back to the configuration's.
pub fn set_trace(changes: &BTreeMap<String, Vec<String>>) -> Result<(), InferError> {
    if changes.is_empty() {
        return Ok(());
    }
    let Some(configured) = trace::configured_share() else {
        return bad("no traces are sent here; name a collector in trace.otlp".into());
    };
    let mut on = trace::share().is_some();
    let mut share = trace::share().unwrap_or(configured);
    for (name, values) in changes {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        match (name.as_str(), &values[..]) {
            (LEVEL, [] | ["TIMESTAMPS"]) => on = true,
            (LEVEL, ["OFF"]) => on = false,
            (LEVEL, _) => return bad(format!("{LEVEL}: send OFF or TIMESTAMPS")),
            (RATE, []) => share = configured,
            (RATE, [rate]) => match rate.parse::<u32>() {
                Ok(0) => share = 0.0,
                Ok(rate) => share = 1.0 / f64::from(rate),
                Err(_) => return bad(format!("{RATE}: {} is not a whole number", shown(rate))),
            },
            _ => {
                let name = shown(name);
                return bad(format!("{name} cannot be changed here; {LEVEL} and {RATE} can"));
            }
        }
    }
    trace::set_share(on.then_some(share));
    Ok(())
}

const VERBOSE: &str = "log_verbose_level";
/// From the most to the fewest lines.
const FLAGS: [(&str, LevelFilter); 3] = [
    ("log_info", LevelFilter::INFO),
    ("log_warning", LevelFilter::WARN),
    ("log_error", LevelFilter::ERROR),
];

pub fn log_settings() -> LogSettings {
    shown_at(log::level())
}

fn shown_at(level: LevelFilter) -> LogSettings {
    let verbose = u32::from(level >= LevelFilter::DEBUG) + u32::from(level >= LevelFilter::TRACE);
    let mut settings = BTreeMap::from([
        (VERBOSE, LogValue::Number(verbose)),
        ("log_file", LogValue::Text(String::new())),
        ("log_format", LogValue::Text("default".into())),
    ]);
    settings.extend(FLAGS.map(|(name, needs)| (name, LogValue::Flag(level >= needs))));
    settings
}

/// Takes changes into force, all or none.
pub fn set_log(changes: &BTreeMap<String, LogValue>) -> Result<(), InferError> {
    if changes.is_empty() {
        return Ok(());
    }
    let level = changed(log::level(), changes)?;
    log::set_level(&level.to_string()).map_err(InferError::BadInput)
}

/// The level that these changes make of one.
fn changed(
    level: LevelFilter,
    changes: &BTreeMap<String, LogValue>,
) -> Result<LevelFilter, InferError> {
    let mut settings = shown_at(level);
    for (name, value) in changes {
        let Some((_, old)) = settings.iter_mut().find(|(known, _)| **known == name.as_str()) else {
            return bad(format!("{} is no log setting", shown(name)));
        };
        let fixed = matches!(old, LogValue::Text(_));
        if std::mem::discriminant(old) != std::mem::discriminant(value) {
            return bad(format!("{name}: a value of another kind is needed"));
        }
        if fixed && old != value {
            return bad(format!("{name} cannot be changed while the edge runs"));
        }
        *old = value.clone();
    }
    Ok(match settings[VERBOSE] {
        LogValue::Number(2..) => LevelFilter::TRACE,
        LogValue::Number(1) => LevelFilter::DEBUG,
        _ => {
            let most = FLAGS.iter().find(|(name, _)| settings[name] == LogValue::Flag(true));
            most.map_or(LevelFilter::OFF, |(_, level)| *level)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(level: LevelFilter, changes: &[(&str, LogValue)]) -> Result<LevelFilter, String> {
        let changes = changes.iter().map(|(name, value)| ((*name).to_string(), value.clone()));
        changed(level, &changes.collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_are_levels() {
        use LogValue::{Flag, Number};
        let (info, debug) = (LevelFilter::INFO, LevelFilter::DEBUG);
        assert_eq!(after(info, &[(VERBOSE, Number(1))]), Ok(debug));
        assert_eq!(after(info, &[(VERBOSE, Number(7))]), Ok(LevelFilter::TRACE));
        assert_eq!(after(debug, &[(VERBOSE, Number(0))]), Ok(info));
        assert_eq!(after(info, &[("log_info", Flag(false))]), Ok(LevelFilter::WARN));
        let all = FLAGS.map(|(name, _)| (name, Flag(false)));
        assert_eq!(after(info, &all), Ok(LevelFilter::OFF));
        assert_eq!(after(LevelFilter::OFF, &[("log_error", Flag(true))]), Ok(LevelFilter::ERROR));
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let refused = |name, value| after(LevelFilter::INFO, &[(name, value)]).unwrap_err();
        assert!(refused("log_colour", LogValue::Flag(true)).contains("is no log setting"));
        assert!(refused("log_info", LogValue::Number(1)).contains("another kind"));
        let file = LogValue::Text("/tmp/edge.log".into());
        assert!(refused("log_file", file).contains("cannot be changed"));
    }

    #[test]
    fn without_a_collector_nothing_is_traced() {
        let settings = trace_settings();
        assert_eq!(settings[LEVEL], ["OFF"]);
        let on = BTreeMap::from([(LEVEL.to_string(), vec!["TIMESTAMPS".to_string()])]);
        assert!(set_trace(&on).unwrap_err().to_string().contains("trace.otlp"));
    }
}
