//! Ranges of values, and refusals that say where.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;

use super::{
    ProfileError,
    tables::{Number, Text, Whole},
};

/// The file that is being read, for messages.
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Place<'_> {
    /// `FILE:LINE: key: problem`.
    pub(super) fn refuse(
        &self,
        span: Range<usize>,
        key: &str,
        problem: impl Into<String>,
    ) -> ProfileError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let problem = problem.into();
        let problem = if key.is_empty() { problem } else { format!("{key}: {problem}") };
        ProfileError { place: format!("{}:{line}", self.file), problem }
    }

    /// The value if it is there and in range, `default` if it is not there.
    pub(super) fn number(
        &self,
        key: &str,
        value: &Number,
        allowed: RangeInclusive<f64>,
        default: f64,
    ) -> Result<f64, ProfileError> {
        let Some(value) = value else { return Ok(default) };
        let number = *value.get_ref();
        // A number that is none is in no range.
        if allowed.contains(&number) {
            return Ok(number);
        }
        let (low, high) = (allowed.start(), allowed.end());
        Err(self.refuse(
            value.span(),
            key,
            format!("{number} is out of range; allowed: {low} to {high}"),
        ))
    }

    pub(super) fn whole(
        &self,
        key: &str,
        value: &Whole,
        allowed: RangeInclusive<i64>,
        default: i64,
    ) -> Result<i64, ProfileError> {
        let Some(value) = value else { return Ok(default) };
        let number = *value.get_ref();
        if allowed.contains(&number) {
            return Ok(number);
        }
        let (low, high) = (allowed.start(), allowed.end());
        Err(self.refuse(
            value.span(),
            key,
            format!("{number} is out of range; allowed: {low} to {high}"),
        ))
    }

    /// The choice of that name; the first one if none is named.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        value: &Text,
        choices: &[(&str, T)],
    ) -> Result<T, ProfileError> {
        let Some(value) = value else { return Ok(choices[0].1) };
        let found = choices.iter().find(|(name, _)| name == value.get_ref());
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let problem =
                format!("{:?} is unknown; allowed: {}", value.get_ref(), names.join(", "));
            self.refuse(value.span(), key, problem)
        })
    }

    /// A value that must be there.
    pub(super) fn needed<'t, T>(
        &self,
        value: &'t Option<Spanned<T>>,
        table: Range<usize>,
        key: &str,
    ) -> Result<&'t Spanned<T>, ProfileError> {
        value.as_ref().ok_or_else(|| self.refuse(table, key, "is missing"))
    }
}
