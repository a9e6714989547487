//! `edge-node audit`: what an activation gives away, by an attack on it.
//!
//! The auditor plays a cloud that wants the inputs back. For each split point it takes the activations
//! of the training part of the data, as they would be sent ([`subject`]), trains a decoder to rebuild
//! the inputs ([`decoder`], [`attack`]), and compares what it rebuilds of held-out samples with the
//! originals ([`quality`]). A table, JSON and a picture ([`picture`]) say how close it came. With
//! `[train.privacy]` the activations are clipped and noised as in training, so one sees what that buys.
//! Everything runs on this node; no cloud is asked.

mod attack;
mod decoder;
mod picture;
pub mod quality;
mod report;
mod subject;

use std::path::Path;

use cleave_shared::{
    checkpoint::write_atomic,
    config::Config,
    data::Part,
    privacy::{NoiseKey, PrivacySpec, Shield},
};

pub use self::report::{Cut, Report};
use self::{
    attack::Attacker,
    picture::Grid,
    quality::Quality,
    subject::{Samples, Subject},
};
use crate::bar::bar;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// All whose stages this node has, without any.
    pub split_points: Vec<usize>,
    /// The attacker learns from this many samples at most, and is measured on as many at most.
    pub samples: usize,
    pub epochs: u64,
    /// The run whose weights and data are meant; what is deployed without it.
    pub run: Option<String>,
}

/// A finished audit.
pub struct Audit {
    pub report: Report,
    /// Originals and what was rebuilt of them, a PNG file; none where inputs are no images.
    pub picture: Option<Vec<u8>>,
    folder: std::path::PathBuf,
}

/// Attacks each split point; `progress` is told what is done. The error is one line.
pub fn audit(
    config: &Config,
    options: &Options,
    mut progress: impl FnMut(&str),
) -> Result<Audit, String> {
    let subject = Subject::open(config, options.run.as_deref())?;
    let splits = subject.split_points(&options.split_points)?;
    let mut train = subject.collect(Part::Train, options.samples)?;
    let mut held_out = subject.collect(Part::Test, options.samples)?;
    let (inputs, originals) = (train.inputs()?, held_out.inputs()?);
    let (low, high) = inputs.range();
    if low == high {
        return Err("audit: all inputs are the same value: there is nothing to rebuild".into());
    }
    let judge = |rebuilt: &Samples| Quality::of(&originals, rebuilt, f64::from(high - low));
    let privacy = subject.privacy().cloned();
    let shield = shield(privacy.as_ref(), subject.seed());
    let mut grid = Grid::new(&originals, low, high);
    let mut cuts = Vec::new();
    let shown = bar("attacking, epochs", splits.len() * options.epochs as usize);
    for &split in &splits {
        train.advance(&subject, split)?;
        held_out.advance(&subject, split)?;
        let (seen, asked) = (train.smashed(split)?, held_out.smashed(split)?);
        let (epochs, seed) = (options.epochs, subject.seed());
        let attacker = Attacker { epochs, seed, shield: &shield, shown: &shown };
        let rebuilt = attacker.rebuild(&seen, &inputs, &asked).map_err(|e| e.to_string())?;
        let cut = Cut {
            split_point: split,
            after: subject.after(split),
            values: seen.width(),
            norm: seen.median_norm(),
            quality: judge(&rebuilt),
        };
        shown.suspend(|| progress(&cut.line()));
        grid.add(&rebuilt);
        cuts.push(cut);
    }
    let report = Report {
        weights: subject.weights().to_string(),
        data: subject.data_name(),
        samples: inputs.count(),
        held_out: originals.count(),
        epochs: options.epochs,
        seed: subject.seed(),
        range: [low, high],
        epsilon: privacy.as_ref().and_then(|p| p.epsilon(1)),
        privacy,
        mean_image: judge(&inputs.mean_of_all(originals.count())),
        cuts,
    };
    Ok(Audit { report, picture: grid.png()?, folder: subject.folder() })
}

/// What is done to an activation before it is sent. The key may be known: an audit measures, and is to
/// give the same figures again.
fn shield(privacy: Option<&PrivacySpec>, seed: u64) -> Shield {
    let key = NoiseKey::from_seed(seed).derive("audit");
    Shield::new(&privacy.cloned().unwrap_or_default(), key)
}

impl Audit {
    /// Writes `audit.json`, and `audit.png` if there is a picture, into the run's folder; gives what
    /// was written.
    pub fn save(&self) -> Result<String, String> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let write = |path: &Path, bytes: &[u8]| -> Result<String, String> {
            write_atomic(path, bytes).map_err(|e| e.to_string())?;
            Ok(path.display().to_string())
        };
        let json = write(&folder.join("audit.json"), self.report.json().as_bytes())?;
        match &self.picture {
            Some(png) => Ok(format!("{json} and {}", write(&folder.join("audit.png"), png)?)),
            None => Ok(json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(split_points: &[usize], epochs: u64) -> Options {
        Options { split_points: split_points.to_vec(), samples: 600, epochs, run: None }
    }

    fn attacked(config: &Config, options: &Options) -> Report {
        audit(config, options, |_| ()).unwrap().report
    }

    /// The default configuration: the demo's LeNet and the digits.
    fn config() -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.runs.dir = folder.path().join("runs");
        (folder, config)
    }

    #[test]
    fn an_early_cut_gives_the_digits_away_and_a_late_one_does_not() {
        let (_folder, config) = config();
        let report = attacked(&config, &options(&[6, 1], 15));
        let [early, late] = &report.cuts[..] else { panic!("two cuts") };
        assert_eq!((early.split_point, early.after.as_str()), (1, "conv1"));
        assert_eq!((late.split_point, late.after.as_str()), (6, "fc2"));
        let mean = &report.mean_image;
        assert!(early.quality.mse * 10.0 < mean.mse, "{report:?}");
        assert!(early.quality.mse * 4.0 < late.quality.mse, "{report:?}");
        assert!(early.quality.ssim > Some(0.9) && late.quality.ssim < Some(0.8), "{report:?}");
        assert!(late.quality.mse < mean.mse, "{report:?}");
    }

    #[test]
    fn strong_noise_hides_the_digits() {
        let (_folder, mut config) = config();
        let plain = attacked(&config, &options(&[1], 5));
        let noise =
            PrivacySpec { clip: Some(1.0), noise_multiplier: Some(4.0), ..PrivacySpec::default() };
        config.train.privacy = Some(noise);
        let noised = attacked(&config, &options(&[1], 5));
        let (plain, hidden) = (&plain.cuts[0].quality, &noised.cuts[0].quality);
        assert!(hidden.mse > noised.mean_image.mse * 0.9, "{noised:?}");
        assert!(hidden.mse > plain.mse * 5.0, "{noised:?}");
        assert!(noised.epsilon.is_some_and(|e| e > 0.0));
    }

    #[test]
    fn the_same_seed_gives_the_same_figures_and_files() {
        let (_folder, config) = config();
        let run = || audit(&config, &options(&[5], 2), |_| ()).unwrap();
        let (first, second) = (run(), run());
        assert_eq!(first.report.json(), second.report.json());
        assert_eq!(first.picture, second.picture);
        let written = first.save().unwrap();
        assert!(
            written.contains("seed-7/audit.json") && written.contains("audit.png"),
            "{written}"
        );
        let folder = config.runs.dir.join("edge/seed-7");
        let json = std::fs::read_to_string(folder.join("audit.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["cuts"][0]["split_point"], 5);
        assert_eq!(std::fs::read(folder.join("audit.png")).unwrap(), first.picture.unwrap());
    }

    #[test]
    fn what_cannot_be_audited_is_refused_in_one_line() {
        let (_folder, config) = config();
        let refused = |config: &Config, options: &Options| {
            audit(config, options, |_| ()).err().expect("refused")
        };
        let text = refused(&config, &options(&[7], 1));
        assert!(text.contains("--split-points: 7") && text.contains("0 to 6"), "{text}");
        let text = refused(&config, &Options { run: Some("none".into()), ..options(&[1], 1) });
        assert!(text.contains("--run: none was not trained"), "{text}");
        let mut tokens = config.clone();
        tokens.model = cleave_shared::model::named::model_by_name("gpt2").unwrap();
        let text = refused(&tokens, &options(&[1], 1));
        assert!(text.contains("numbers") && text.contains("gpt2"), "{text}");
    }
}
