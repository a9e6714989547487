//! What is attacked: weights, data, and the activations of any split point.
//!
//! Activations of a later split point are computed from those of an earlier one, so that a whole audit
//! runs each stage once on each sample.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use cleave_shared::{
    checkpoint::{Library, WeightsId},
    config::Config,
    data::{Feed, Part},
    model::Segment,
    privacy::PrivacySpec,
    tensor::DType,
    wire::NamedTensors,
};

use crate::{chosen::Chosen, deploy::folder_of};

/// Samples that go through the head at once.
const BATCH: usize = 32;
/// Most that the activations of one split point may take, bytes.
const MOST_BYTES: usize = 2 << 30;

/// A model with weights, and the data that it is for.
pub struct Subject {
    config: Config,
    weights: WeightsId,
    library: Library,
    feed: Feed,
}

impl Subject {
    /// The run with this id; without one what is deployed, or else what the configuration starts from.
    pub fn open(config: &Config, run: Option<&str>) -> Result<Self, String> {
        let chosen = Chosen::open(config, run)?;
        check_inputs(&chosen.config)?;
        let feed = chosen.feed()?;
        let Chosen { config: mut own, weights, library, .. } = chosen;
        // What the configuration says now: one may ask what noise would hide of an old run.
        own.train.privacy = config.train.privacy.clone().or(own.train.privacy);
        Ok(Self { config: own, weights, library, feed })
    }

    pub fn weights(&self) -> &WeightsId {
        &self.weights
    }

    pub fn seed(&self) -> u64 {
        self.config.seed
    }

    pub fn privacy(&self) -> Option<&PrivacySpec> {
        self.config.train.privacy.as_ref()
    }

    pub fn data_name(&self) -> String {
        self.feed.dataset().name().into()
    }

    /// Where reports on these weights are.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.config.runs.dir, &self.weights)
    }

    /// The stage before this cut.
    pub fn after(&self, split: usize) -> String {
        let names = self.config.model.stage_names();
        split.checked_sub(1).map_or_else(|| "input".into(), |i| names[i].clone())
    }

    /// The split points to attack, in order: those asked for, or all but 0 whose stages are here.
    pub fn split_points(&self, asked: &[usize]) -> Result<Vec<usize>, String> {
        let names = self.config.model.stage_names();
        if let Some(split) = asked.iter().find(|&&split| split > names.len()) {
            let stages = names.len();
            return Err(format!("--split-points: {split} is out of range; allowed: 0 to {stages}"));
        }
        let missing = self.library.missing(&self.weights, &names).map_err(|e| e.to_string())?;
        let here = names.iter().take_while(|name| !missing.contains(name)).count();
        if let Some(split) = asked.iter().find(|&&split| split > here) {
            return Err(format!(
                "--split-points: {split}: the cloud has {} of {}; this node has split points up to {here}",
                names[here], self.weights
            ));
        }
        let mut splits = match asked.is_empty() {
            true => (1..=here).collect(),
            false => asked.to_vec(),
        };
        splits.sort_unstable();
        splits.dedup();
        Ok(splits)
    }

    /// The first samples of a part, at split point 0.
    pub fn collect(&self, part: Part, most: usize) -> Result<Activations, String> {
        let split = self.feed.dataset().split(self.config.seed);
        let indices = split.indices(part);
        let indices = &indices[..indices.len().min(most)];
        if indices.is_empty() {
            return Err(format!("data: {} has too few samples to audit", self.data_name()));
        }
        let batches = indices.chunks(BATCH).map(|indices| self.feed.batch(indices).inputs);
        Ok(Activations { split: 0, batches: batches.collect() })
    }

    fn stages(&self, range: std::ops::Range<usize>) -> Result<Segment, String> {
        let model = &self.config.model;
        let names = &model.stage_names()[range.clone()];
        let source = self.library.source(&self.weights, names);
        let mut source = source.map_err(|e| e.to_string())?;
        Segment::build(model, range, source.as_mut(), false).map_err(|e| e.to_string())
    }
}

/// One numeric input, which is what is rebuilt; others, such as lengths, may stand beside it.
fn check_inputs(config: &Config) -> Result<(), String> {
    let inputs = config.model.inputs();
    match inputs.iter().filter(|port| port.dtype == DType::F32).count() {
        1 => Ok(()),
        found => {
            let family = config.model.family_name();
            Err(format!(
                "audit: it rebuilds one input of numbers, such as an image; a {family} has {found}"
            ))
        }
    }
}

/// Samples on their way through the model.
pub struct Activations {
    split: usize,
    batches: Vec<NamedTensors>,
}

impl Activations {
    /// Goes on to a later split point.
    pub fn advance(&mut self, subject: &Subject, split: usize) -> Result<(), String> {
        let stages = subject.stages(self.split..split)?;
        for batch in &mut self.batches {
            *batch = stages.infer(batch).map_err(|e| e.to_string())?;
        }
        self.split = split;
        Ok(())
    }

    /// The input of numbers, before any stage.
    pub fn inputs(&self) -> Result<Samples, String> {
        self.smashed(0)
    }

    /// What crosses the cut as numbers: the floats of each sample.
    pub fn smashed(&self, split: usize) -> Result<Samples, String> {
        let floats = |batch: &NamedTensors| -> Vec<(Vec<usize>, Vec<f32>)> {
            let floats = batch.iter().filter(|(_, tensor)| tensor.dtype() == DType::F32);
            floats.map(|(_, t)| (t.shape().to_vec(), t.to_f32().expect("FP32"))).collect()
        };
        let (mut shape, mut values, mut count) = (Vec::new(), Vec::new(), 0);
        for batch in &self.batches {
            let tensors = floats(batch);
            let rows = tensors.first().map_or(0, |(shape, _)| shape[0]);
            shape = match &tensors[..] {
                [(shape, _)] => shape[1..].to_vec(),
                several => vec![several.iter().map(|(_, v)| v.len() / rows.max(1)).sum()],
            };
            count += rows;
            for row in 0..rows {
                for (_, tensor) in &tensors {
                    let width = tensor.len() / rows;
                    values.extend_from_slice(&tensor[row * width..(row + 1) * width]);
                }
            }
            if values.len() * size_of::<f32>() > MOST_BYTES {
                return Err(format!(
                    "split point {split}: activations take more than {} GiB; give fewer with --samples",
                    MOST_BYTES >> 30
                ));
            }
        }
        match values.is_empty() || count * shape.iter().product::<usize>() != values.len() {
            true => Err(format!("split point {split}: samples differ in size, or have no numbers")),
            false => Ok(Samples { shape, values }),
        }
    }
}

/// As many numbers of each sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Of one sample.
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Samples {
    /// Values of one sample.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn count(&self) -> usize {
        self.values.len() / self.width()
    }

    pub fn sample(&self, index: usize) -> &[f32] {
        let width = self.width();
        &self.values[index * width..(index + 1) * width]
    }

    /// The least and the greatest value.
    pub fn range(&self) -> (f32, f32) {
        let values = self.values.iter().copied();
        values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    }

    /// The L2 norm that half of the samples exceed.
    pub fn median_norm(&self) -> f64 {
        let squares = |i: usize| self.sample(i).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let mut norms: Vec<f64> = (0..self.count()).map(|i| squares(i).sqrt()).collect();
        norms.sort_by(f64::total_cmp);
        norms[norms.len() / 2]
    }

    /// `[channels, height, width]`, if a sample is an image.
    pub fn image(&self) -> Option<[usize; 3]> {
        <[usize; 3]>::try_from(&self.shape[..]).ok()
    }

    /// `[samples, values]` on a device.
    pub fn rows(&self, indices: &[usize], device: &Device) -> Tensor<2> {
        let values: Vec<f32> = indices.iter().flat_map(|&i| self.sample(i)).copied().collect();
        Tensor::from_data(TensorData::new(values, [indices.len(), self.width()]), device)
    }

    /// `count` times the mean of all samples.
    pub fn mean_of_all(&self, count: usize) -> Samples {
        let mut mean = vec![0.0f64; self.width()];
        for i in 0..self.count() {
            mean.iter_mut().zip(self.sample(i)).for_each(|(m, v)| *m += f64::from(*v));
        }
        let mean: Vec<f32> = mean.iter().map(|m| (m / self.count() as f64) as f32).collect();
        Samples { shape: self.shape.clone(), values: mean.repeat(count) }
    }
}
