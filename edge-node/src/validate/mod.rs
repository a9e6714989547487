//! The third of the five steps: measures a trained run on a part of its data, across the split.
//!
//! Accuracy, confusion matrix and the scores of each class; perplexity of a language model; error of a
//! regression. The result is kept in the run's folder.

mod confusion;
mod report;

use cleave_shared::{
    checkpoint::{WeightsId, write_atomic},
    config::Config,
    data::{Batch, Part, Target},
    model::{LossKind, loss},
    tensor::HostTensor,
};

use self::confusion::Confusion;
pub use self::report::Report;
use crate::{
    bar::bar,
    split_model::SplitModel,
    train::{RunRecord, Tally, newest_run},
};

/// Samples of one batch at most, and bytes of output that they may have.
const BATCH: usize = 256;
const OUTPUT_BYTES: usize = 32 << 20;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The newest without it.
    pub run: Option<String>,
    pub part: Part,
}

/// Measures; the error is one line.
pub async fn validate(config: &Config, options: &Options) -> Result<Report, String> {
    let runs = &config.runs.dir;
    let named = options.run.clone().or_else(|| newest_run(config));
    let run = named.ok_or_else(|| format!("there is no run in {}", runs.display()))?;
    let record = RunRecord::read(runs, &run)?
        .ok_or_else(|| format!("--run: {run} was not trained in {}", runs.display()))?;
    record.check_model(&run)?;
    let config = record.configure(config);
    let step = config.runs.open("edge")?.steps(&run).last().copied();
    let step = step.ok_or_else(|| format!("{run} has no checkpoint yet"))?;
    let feed = record.feed(&config)?;
    let split = feed.dataset().split(config.seed);
    let indices = split.indices(options.part);
    if indices.is_empty() {
        return Err(format!("{run}: this part of the data has no samples"));
    }
    let model = SplitModel::open(&config, &WeightsId::Run { run: run.clone(), step })?;
    let mut measured = Measured::new(feed.dataset().target(), &config);
    let at_once = (OUTPUT_BYTES / model.output_bytes().max(1)).clamp(1, BATCH);
    let chunks = indices.chunks(at_once);
    for indices in bar("validating", chunks.len()).wrap_iter(chunks) {
        let Batch { inputs, labels } = feed.batch(indices);
        let output = model.infer(inputs, indices.len()).await?;
        measured.add(&output, &labels)?;
    }
    let report = measured.report(run, step, options.part, indices.len());
    let name = format!("validate-{}.json", options.part.name());
    let path = runs.join("edge").join(&report.run).join(name);
    write_atomic(&path, report.json().as_bytes()).map_err(|e| e.to_string())?;
    Ok(report)
}

/// What adds up over batches.
struct Measured {
    tally: Tally,
    confusion: Option<Confusion>,
}

impl Measured {
    fn new(target: Target, config: &Config) -> Self {
        let outputs = config.model.output_shape().last().copied().unwrap_or(0);
        let confusion = match &target {
            Target::Classes { names } => Some(Confusion::new(names, outputs)),
            _ => None,
        };
        let kind = match target {
            Target::Values { .. } => LossKind::Mse,
            _ => LossKind::CrossEntropy,
        };
        Self { tally: Tally::new(target, kind), confusion }
    }

    fn add(&mut self, output: &HostTensor, labels: &HostTensor) -> Result<(), String> {
        let values = output.to_f32().map_err(|e| e.to_string())?;
        if let Ok(targets) = labels.to_f32() {
            if targets.len() != values.len() {
                return Err(format!("{} outputs for {} labels", values.len(), targets.len()));
            }
            let squares = values.iter().zip(&targets).map(|(a, b)| f64::from(a - b).powi(2));
            let mean = squares.sum::<f64>() / values.len().max(1) as f64;
            return self.tally.add(labels, mean as f32, 0);
        }
        let classes = labels.to_i64().map_err(|e| e.to_string())?;
        let width = values.len() / classes.len().max(1);
        if width == 0 || values.len() != width * classes.len() {
            return Err(format!("{} outputs for {} labels", values.len(), classes.len()));
        }
        let (mut total, mut counted, mut correct) = (0.0, 0, 0);
        for (row, &class) in values.chunks_exact(width).zip(&classes) {
            if class == loss::IGNORED {
                continue;
            }
            let prediction = loss::argmax(row);
            counted += 1;
            correct += u64::from(prediction as i64 == class);
            total += usize::try_from(class).map_or(0.0, |class| cross_entropy(row, class));
            if let Some(confusion) = &mut self.confusion {
                confusion.add(class, prediction);
            }
        }
        self.tally.add(labels, (total / f64::from(counted.max(1))) as f32, correct)
    }

    fn report(self, run: String, step: u64, part: Part, samples: usize) -> Report {
        let (loss, score) = (self.tally.loss(), self.tally.score());
        let classes = self.confusion.as_ref().map(Confusion::classes);
        Report { run, step, part, samples, loss, score, classes, confusion: self.confusion }
    }
}

/// Negative log of the softmax's share of `class`.
fn cross_entropy(row: &[f32], class: usize) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|v| f64::from(v - most).exp()).sum();
    row.get(class).map_or(0.0, |v| sum.ln() - f64::from(v - most))
}
