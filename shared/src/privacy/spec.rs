//! `[train.privacy]`: what a user sets, its ranges, and what it guarantees.

use serde::{Deserialize, Serialize};

use super::accountant;

/// δ where none is set.
const DELTA: f64 = 1e-5;

/// How a run protects what it sends; fixed for the life of the run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacySpec {
    /// Largest L2 norm of one sample's activation, all its float tensors together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Standard deviation of the Gaussian noise, as a multiple of `clip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_multiplier: Option<f64>,
    /// δ of the reported (ε, δ).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Weight of the distance correlation in the head's loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nopeek_alpha: Option<f64>,
}

impl PrivacySpec {
    /// `key: problem` of the first value that is out of range or does nothing.
    pub fn check(&self) -> Result<(), String> {
        positive("clip", self.clip, 1e-6..=1e6)?;
        positive("noise_multiplier", self.noise_multiplier, 1e-6..=1e6)?;
        positive("delta", self.delta, 1e-15..=0.1)?;
        positive("nopeek_alpha", self.nopeek_alpha, 1e-6..=1e6)?;
        if self.noise_multiplier.is_some() && self.clip.is_none() {
            return Err("noise_multiplier: noise hides nothing without a bound: set clip".into());
        }
        if self.delta.is_some() && self.noise_multiplier.is_none() {
            return Err("delta: there is no guarantee without noise: set noise_multiplier".into());
        }
        match self.clip.is_none() && self.nopeek_alpha.is_none() {
            true => Err("clip: nothing is protected: set clip or nopeek_alpha".into()),
            false => Ok(()),
        }
    }

    pub fn delta(&self) -> f64 {
        self.delta.unwrap_or(DELTA)
    }

    /// ε at [`PrivacySpec::delta`] for a sample whose activation was sent `releases` times, once an
    /// epoch; none without noise. [`accountant`] says what it is a guarantee of.
    pub fn epsilon(&self, releases: u64) -> Option<f64> {
        // Another sample in its place moves an activation by up to 2 clip: half the multiplier. The
        // cloud sees which activations there are and each by itself, so sampling hides nothing: rate 1.
        let multiplier = self.noise_multiplier? / 2.0;
        Some(accountant::epsilon(multiplier, 1.0, releases, self.delta()))
    }
}

fn positive(
    key: &str,
    value: Option<f64>,
    allowed: std::ops::RangeInclusive<f64>,
) -> Result<(), String> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            let (low, high) = (allowed.start(), allowed.end());
            Err(format!("{key}: {value} is out of range; allowed: {low:e} to {high:e}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(toml: &str) -> PrivacySpec {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn what_is_out_of_range_or_does_nothing_is_refused() {
        for (text, key) in [
            ("clip = 0.0", "clip: 0 is out of range"),
            ("clip = nan", "clip: NaN is out of range"),
            ("clip = 1.0\nnoise_multiplier = -1.0", "noise_multiplier: -1 is out of range"),
            ("clip = 1.0\nnoise_multiplier = 1.0\ndelta = 1.0", "delta: 1 is out of range"),
            ("nopeek_alpha = inf", "nopeek_alpha: inf is out of range"),
            ("noise_multiplier = 1.0", "set clip"),
            ("clip = 1.0\ndelta = 1e-5", "set noise_multiplier"),
            ("", "nothing is protected"),
        ] {
            let problem = spec(text).check().unwrap_err();
            assert!(problem.contains(key), "{text}: {problem}");
        }
        for text in ["clip = 1.0", "nopeek_alpha = 0.1", "clip = 1.0\nnoise_multiplier = 0.5"] {
            assert_eq!(spec(text).check(), Ok(()));
        }
        assert!(toml::from_str::<PrivacySpec>("clip = 1.0\nnoise = 2.0").is_err());
    }

    #[test]
    fn replacing_a_sample_counts_twice_the_clip() {
        let noisy = spec("clip = 3.0\nnoise_multiplier = 4.0");
        let epsilon = noisy.epsilon(10).unwrap();
        assert_eq!(epsilon, accountant::epsilon(2.0, 1.0, 10, 1e-5));
        assert!(epsilon < noisy.epsilon(11).unwrap());
        assert_eq!(spec("clip = 3.0").epsilon(10), None);
    }
}
