//! An audit as a table and as JSON.

use std::fmt::Write;

use cleave_shared::privacy::PrivacySpec;
use serde::Serialize;

use super::Quality;

/// What was rebuilt at one split point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cut {
    pub split_point: usize,
    /// The stage before the cut.
    pub after: String,
    /// Numbers of one sample that cross it.
    pub values: usize,
    /// Their L2 norm, the median over samples: what a clip is to be compared with.
    pub norm: f64,
    #[serde(flatten)]
    pub quality: Quality,
}

/// What an attacker made of each split point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub weights: String,
    pub data: String,
    /// Samples that the attacker learned from.
    pub samples: usize,
    /// Samples that it rebuilt.
    pub held_out: usize,
    pub epochs: u64,
    pub seed: u64,
    /// Least and greatest value of the inputs; PSNR and SSIM are relative to it.
    pub range: [f32; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySpec>,
    /// ε of sending one activation once, if there is noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// What one gets without any activation: the mean of the training part.
    pub mean_image: Quality,
    pub cuts: Vec<Cut>,
}

impl Report {
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }

    pub fn render(&self) -> String {
        let Self { weights, data, samples, held_out, epochs, .. } = self;
        let mut text = format!(
            "{weights}, {data}: a decoder for each cut, {epochs} epochs over {samples} samples, \
             measured on {held_out} others\n{}\n",
            self.protection()
        );
        let _ = writeln!(
            text,
            "  {:>3}  {:<12} {:>9} {:>9} {:>10} {:>8} {:>7}",
            "cut", "after", "values", "norm", "MSE", "PSNR dB", "SSIM"
        );
        for cut in &self.cuts {
            text += &cut.line();
            text.push('\n');
        }
        let mean = scores(&self.mean_image);
        let _ = writeln!(text, "  {:>3}  {:<12} {:>9} {:>9} {mean}", "", "mean input", "", "");
        text
    }

    fn protection(&self) -> String {
        let Some(privacy) = &self.privacy else { return "activations as they are".into() };
        match (privacy.clip, privacy.noise_multiplier, self.epsilon) {
            (None, ..) => "activations as they are".into(),
            (Some(clip), Some(noise), Some(epsilon)) => format!(
                "clip {clip}, noise multiplier {noise}: ε {epsilon:.3} at δ {:e} for each activation sent",
                privacy.delta()
            ),
            (Some(clip), ..) => format!("clip {clip}, no noise: no guarantee"),
        }
    }
}

impl Cut {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { split_point, after, values, norm, quality } = self;
        format!("  {split_point:>3}  {after:<12} {values:>9} {norm:>9.3} {}", scores(quality))
    }
}

fn scores(Quality { mse, psnr, ssim }: &Quality) -> String {
    let ssim = ssim.map_or("-".into(), |s| format!("{s:.4}"));
    format!("{mse:>10.6} {psnr:>8.2} {ssim:>7}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_cut_and_one_for_the_mean() {
        let quality = |mse, ssim| Quality { mse, psnr: 12.5, ssim };
        let cut = |split_point, after: &str| Cut {
            split_point,
            after: after.into(),
            values: 2048,
            norm: 6.25,
            quality: quality(0.001, Some(0.95)),
        };
        let report = Report {
            weights: "seed:7".into(),
            data: "digits".into(),
            samples: 1257,
            held_out: 360,
            epochs: 40,
            seed: 7,
            range: [0.0, 1.0],
            privacy: Some(PrivacySpec {
                clip: Some(2.0),
                noise_multiplier: Some(0.5),
                ..PrivacySpec::default()
            }),
            epsilon: Some(31.4159),
            mean_image: quality(0.07, None),
            cuts: vec![cut(1, "conv1"), cut(2, "pool1")],
        };
        let text = report.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[1].contains("ε 31.416 at δ 1e-5"), "{text}");
        for part in ["2", "pool1", "2048", "6.250", "0.001000", "12.50", "0.9500"] {
            assert!(lines[4].contains(part), "{part}: {text}");
        }
        assert!(lines[5].contains("mean input") && lines[5].ends_with('-'), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["cuts"][1]["ssim"], 0.95);
        assert_eq!(json["privacy"]["clip"], 2.0);
    }
}
