//! Looks at what a node needs before it is started, and says what to do about what is wrong: `edge-node doctor` and
//! `cloud-node doctor`.
//!
//! A check is a function that gives [`Finding`]s and changes nothing. Those that both nodes have are here; what only the edge
//! asks, such as whether its cloud answers, is the edge's.

mod identity;
mod place;
mod setting;
mod weights;

use std::fmt::Write;

use serde::Serialize;

pub use self::{identity::identity, place::port, setting::begin, weights::weights};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It runs, but perhaps not as it was meant to.
    Warning,
    /// It does not run like this.
    Error,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, one or two words.
    pub check: &'static str,
    pub verdict: Verdict,
    /// One line.
    pub found: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    pub fn warning(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let advice = Some(advice.into());
        Self { check, verdict: Verdict::Warning, found: found.into(), advice }
    }

    /// Errors of Cleave say by themselves what to do.
    pub fn error(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Error, found: found.into(), advice: None }
    }

    pub fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Prints what was found; an error if something is.
pub fn report(findings: &[Finding], json: bool) -> Result<(), String> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(findings).expect("plain data")),
        false => print!("{}", table(findings)),
    }
    let wrong = findings.iter().filter(|f| f.verdict == Verdict::Error).count();
    match wrong {
        0 => Ok(()),
        n => Err(format!("doctor: {n} of {} findings are errors", findings.len())),
    }
}

fn table(findings: &[Finding]) -> String {
    let widest = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, found, advice } in findings {
        let mark = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Error => "ERROR",
        };
        let _ = writeln!(text, "{mark:<8} {check:<widest$}  {found}");
        if let Some(advice) = advice {
            let _ = writeln!(text, "{:<8} {:<widest$}  → {advice}", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_under_what_it_is_about() {
        let findings = [
            Finding::ok("link", "none"),
            Finding::warning("weights", "of a seed", "train them"),
            Finding::error("a port", "in use"),
        ];
        let wanted = "ok       link     none\n\
                      warning  weights  of a seed\n                  → train them\n\
                      ERROR    a port   in use\n";
        assert_eq!(table(&findings), wanted);
        assert_eq!(report(&findings[..2], true), Ok(()));
        assert_eq!(report(&findings, true), Err("doctor: 1 of 3 findings are errors".into()));
    }
}
