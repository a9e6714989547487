//! A part of the data as exits see it: features at each exit, logits of the uncut model, labels.

use burn::tensor::{Device, Tensor, TensorData};
use cleave_shared::{
    data::{Batch, Part, Target},
    model::Segment,
};

use crate::{bar::bar, chosen::Chosen, split_model::SplitModel};

/// Samples that cross the link at once.
const BATCH: usize = 128;

/// A matrix with a sample in each row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub width: usize,
    pub values: Vec<f32>,
}

impl Rows {
    fn add(&mut self, width: usize, values: impl IntoIterator<Item = f32>) {
        self.width = width;
        self.values.extend(values);
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }

    pub fn tensor(&self, indices: &[usize], device: &Device) -> Tensor<2> {
        let values: Vec<f32> = indices.iter().flat_map(|&i| self.row(i)).copied().collect();
        Tensor::from_data(TensorData::new(values, [indices.len(), self.width]), device)
    }

    /// Mean and standard deviation of each column.
    pub fn spread(&self) -> (Vec<f32>, Vec<f32>) {
        let count = (self.values.len() / self.width.max(1)).max(1) as f64;
        let (mut mean, mut square) = (vec![0.0f64; self.width], vec![0.0f64; self.width]);
        for row in self.iter() {
            for (i, &value) in row.iter().enumerate() {
                mean[i] += f64::from(value) / count;
                square[i] += f64::from(value).powi(2) / count;
            }
        }
        let deviation = mean.iter().zip(&square).map(|(m, s)| {
            // A column that never changes says nothing: leave it as it is.
            let variance = s - m * m;
            if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 }
        });
        let deviation = deviation.collect();
        (mean.into_iter().map(|m| m as f32).collect(), deviation)
    }
}

/// What exits at some places learn from, or are measured on.
pub struct Samples {
    /// For each place.
    pub features: Vec<Rows>,
    pub uncut: Rows,
    pub labels: Vec<i64>,
}

impl Samples {
    /// Sends the samples of a part through the stages that are here, and through the uncut model, whose
    /// tail the cloud runs as for any request.
    pub async fn collect(chosen: &Chosen, places: &[usize], part: Part) -> Result<Self, String> {
        let Chosen { config, weights, .. } = chosen;
        let feed = chosen.feed()?;
        let target = feed.dataset().target();
        if !matches!(target, Target::Classes { .. }) {
            return Err("exits tell classes apart, which these data have not".into());
        }
        let split = feed.dataset().split(config.seed);
        let indices = split.indices(part);
        if indices.is_empty() {
            return Err(format!("data: no samples in this part of {}", feed.dataset().name()));
        }
        let last = places.iter().copied().max().unwrap_or(0);
        let names = &config.model.stage_names()[..last];
        let source = chosen.library.source(weights, names);
        let mut source = source.map_err(|e| e.to_string())?;
        let head = Segment::build(&config.model, 0..last, source.as_mut(), false);
        let head = head.map_err(|e| format!("{weights}: {e}"))?;
        let model = SplitModel::open(config, weights)?;
        let features = vec![Rows::default(); places.len()];
        let mut found = Self { features, uncut: Rows::default(), labels: Vec::new() };
        let chunks = indices.chunks(BATCH);
        for indices in bar("asking the uncut model", chunks.len()).wrap_iter(chunks) {
            let Batch { inputs, labels } = feed.batch(indices);
            let features = head.exit_features(&inputs, places).map_err(|e| e.to_string())?;
            for (rows, tensor) in found.features.iter_mut().zip(features) {
                rows.add(tensor.dims()[1], tensor.into_data().iter::<f32>());
            }
            let output = model.infer(inputs, indices.len()).await?;
            let logits = output.to_f32().map_err(|e| e.to_string())?;
            found.uncut.add(logits.len() / indices.len(), logits);
            found.labels.extend(labels.to_i64().map_err(|e| e.to_string())?);
        }
        Ok(found)
    }
}
