//! What each part of a request costs at each split point, from the measurements of both nodes.

use cleave_shared::model::Inspection;

use super::measured::Measured;

/// One codec at one cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossing {
    pub codec: String,
    /// What the activation has when encoded.
    pub bytes: u64,
    /// On the edge, ms.
    pub encode_ms: f64,
    /// In the cloud, ms.
    pub decode_ms: f64,
}

/// A model's costs at its split points `0..=stages`.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// Of the stages before the cut on the edge, ms.
    pub head_ms: Vec<f64>,
    /// Of the stages after it in the cloud, ms.
    pub tail_ms: Vec<f64>,
    /// What may cross; nothing at the last.
    pub crossings: Vec<Vec<Crossing>>,
    /// Computed on the edge, floating-point operations.
    pub head_flops: Vec<f64>,
    /// Weights on the edge, bytes.
    pub head_bytes: Vec<u64>,
    /// The answer, bytes.
    pub output_bytes: u64,
}

impl Costs {
    /// `codecs`: those that may be chosen.
    pub fn new(measured: &Measured, found: &Inspection, codecs: &[String]) -> Self {
        let Measured { edge, cloud, scale, batch, .. } = measured;
        let stages = edge.stages.len();
        let crossings = (0..=stages).map(|split| crossings(measured, split, codecs)).collect();
        let cuts = &found.cuts;
        Self {
            head_ms: (0..=stages).map(|split| scale * edge.forward_ms(0..split)).collect(),
            tail_ms: (0..=stages).map(|split| cloud.forward_ms(split..stages)).collect(),
            crossings,
            head_flops: cuts.iter().map(|c| c.head_flops as f64 * *batch as f64).collect(),
            head_bytes: cuts.iter().map(|c| 4 * c.head_parameters).collect(),
            output_bytes: measured.output_bytes,
        }
    }

    pub fn stages(&self) -> usize {
        self.head_ms.len() - 1
    }
}

fn crossings(measured: &Measured, split: usize, codecs: &[String]) -> Vec<Crossing> {
    let (edge, cloud) = (measured.edge.cuts.get(split), measured.cloud.cuts.get(split));
    let here = edge.into_iter().flatten().filter(|c| codecs.contains(&c.codec));
    here.filter_map(|own| {
        let there = cloud?.iter().find(|other| other.codec == own.codec)?;
        Some(Crossing {
            codec: own.codec.clone(),
            bytes: own.bytes,
            encode_ms: measured.scale * own.encode.median_ms,
            decode_ms: there.decode.median_ms,
        })
    })
    .collect()
}
