//! Smaller models: what quantisation and pruning cost and save, measured on this machine.
//!
//! The whole model is brought to the edge (stages of a run that only the cloud holds are fetched),
//! changed, and measured before and after: bytes of weights in memory, the median time of one sample,
//! accuracy on the held-out data. [`quantize`] only measures, since nodes quantise what they serve by
//! themselves (`quantize.weights`); [`adapter`] exchanges LoRA adapters with PEFT; [`prune`] writes the new model, and can fine-tune it over the split.

pub mod adapter;
pub mod prune;
pub mod quantize;
mod report;

use std::{path::PathBuf, sync::Arc, time::Instant};

use cleave_shared::{
    checkpoint::{Library, WeightsId, write_atomic},
    config::Config,
    data::{Dataset, Part, Split, gather},
    link::Link,
    model::{ModelSpec, Segment},
    wire::NamedTensors,
};

pub use self::report::{Figures, Report};
use crate::{
    bar::bar,
    deploy::{Deployer, Target},
    report::Column,
    stack,
};

/// Requests of one sample before the clock counts, and while it does.
const WARM_UP: usize = 20;
const TIMED: usize = 200;
/// Samples of one batch when accuracy is measured.
const BATCH: usize = 256;

/// Where the model's weights come from, all of them on this node.
struct Source {
    id: WeightsId,
    library: Arc<Library>,
}

impl Source {
    /// All of them as tensors.
    async fn tensors(&self, spec: &ModelSpec) -> Result<NamedTensors, String> {
        let (spec, library, id) = (spec.clone(), self.library.clone(), self.id.clone());
        blocking(move || {
            let weights = library.source(&id, &spec.stage_names());
            let mut weights = weights.map_err(|e| e.to_string())?;
            let model = Segment::build(&spec, 0..spec.stage_count(), weights.as_mut(), false);
            Ok(model.map_err(|e| e.to_string())?.weights())
        })
        .await
    }
}

/// Computation away from the threads that serve the network.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}

/// Brings all stages of the weights with this id here; of what is deployed without one.
async fn whole_model(config: &Config, id: Option<&str>) -> Result<Source, String> {
    let link = Link::new(config.link_profile(), config.link.seed);
    let client = stack::client(config, &link)?;
    let deployer = Deployer::new(config, client)?;
    let id = match id {
        Some(text) => text.parse().map_err(|e| format!("--weights: {e}"))?,
        None => deployer.target(config)?.weights,
    };
    let split = config.model.stage_count();
    let codec = config.codec.activation.clone();
    deployer.bring_head(&Target { split, weights: id.clone(), codec }).await?;
    Ok(Source { id, library: deployer.library().clone() })
}

/// Prints the report, as JSON if asked, and saves it.
fn deliver(report: &Report, folder: PathBuf, name: &str, json: bool) -> Result<(), String> {
    let text = serde_json::to_vec_pretty(report).expect("plain data");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    write_atomic(&path, &text).map_err(|e| e.to_string())?;
    match json {
        true => println!("{}", String::from_utf8_lossy(&text)),
        false => print!("{}\nwrote {}\n", report.render(), path.display()),
    }
    Ok(())
}

/// Measures a whole model; blocks, on a thread that may.
fn measure(
    name: &str,
    model: &Segment,
    dataset: &dyn Dataset,
    config: &Config,
) -> Result<Figures, String> {
    let split = Split::new(dataset.len(), config.seed);
    let test = split.indices(Part::Test);
    if test.is_empty() {
        return Err(format!("data: {} samples leave none to measure with", dataset.len()));
    }
    // In samples: all for the accuracy, then one at a time for the clock.
    let shown = bar(format!("measuring {name}"), test.len() + WARM_UP + TIMED);
    let mut correct = 0;
    for indices in test.chunks(BATCH) {
        let batch = gather(dataset, indices);
        let outcome = model.evaluate(&batch.inputs, &batch.labels, config.train.loss);
        correct += outcome.map_err(|e| e.to_string())?.1;
        shown.inc(indices.len() as u64);
    }
    let mut times = Column::default();
    for (i, &index) in test.iter().cycle().take(WARM_UP + TIMED).enumerate() {
        let inputs = gather(dataset, &[index]).inputs;
        let begin = Instant::now();
        model.infer(&inputs).map_err(|e| e.to_string())?;
        if i >= WARM_UP {
            times.add(begin.elapsed().as_secs_f64() * 1e3);
        }
        shown.inc(1);
    }
    let zeros = |values: Vec<f32>| values.iter().filter(|v| **v == 0.0).count();
    let weights = model.weights();
    Ok(Figures {
        model: name.into(),
        weight_bytes: model.weight_bytes(),
        parameters: weights.iter().map(|(_, t)| t.elements()).sum(),
        zeros: weights.iter().filter_map(|(_, t)| t.to_f32().ok()).map(zeros).sum(),
        p50_ms: times.percentile(0.5),
        correct,
        samples: test.len(),
    })
}
