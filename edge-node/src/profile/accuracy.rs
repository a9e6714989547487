//! Right answers through each codec at each cut, on the validation part of the data.
//!
//! The whole model runs here: stages that only the cloud holds are fetched for it. What crosses a cut goes
//! through the codec and back before the rest of the stages sees it.

use cleave_shared::{
    checkpoint::Library,
    codec::{self, Codec},
    config::Config,
    data::{Batch, Feed, Part, Target},
    model::{ModelError, Segment, loss::argmax},
    profile::decode_own,
    wire::{self, NamedTensors},
};

use crate::{
    bar::bar,
    cloud::CloudClient,
    deploy::{Deployer, Target as Deployed},
    plan::Accuracy,
};

/// Samples that are asked at most, and at once.
const SAMPLES: usize = 2048;
const BATCH: usize = 128;

/// By split point, then by codec.
pub async fn measure(
    config: &Config,
    codecs: &[String],
    cloud: CloudClient,
) -> Result<Vec<Accuracy>, String> {
    let deployer = Deployer::new(config, cloud)?;
    let stages = config.model.stage_count();
    let target = Deployed { split: stages, ..deployer.target(config)? };
    deployer.bring_head(&target).await?;
    let (config, codecs, library) = (config.clone(), codecs.to_vec(), deployer.library().clone());
    let work = move || through_all(&config, &codecs, &library, &target);
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|e| format!("measuring failed: {e}"))?
}

fn through_all(
    config: &Config,
    codecs: &[String],
    library: &Library,
    target: &Deployed,
) -> Result<Vec<Accuracy>, String> {
    let data = config.data.open().map_err(|e| e.to_string())?;
    let split = data.split(config.seed);
    let feed =
        Feed::new(&config.model, config.train.loss, data).map_err(|e| format!("data: {e}"))?;
    if !matches!(feed.dataset().target(), Target::Classes { .. }) {
        return Err("--accuracy counts right classes, which these data have not".into());
    }
    let mut indices = split.indices(Part::Validation).to_vec();
    indices.truncate(SAMPLES);
    if indices.is_empty() {
        return Err("--accuracy: the data's validation part has no samples".into());
    }
    let stages = stages(config, library, target)?;
    let codecs = codecs.iter().map(|name| codec::by_name(name));
    let codecs = codecs.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let mut right = vec![vec![0usize; codecs.len()]; stages.len()];
    let chunks = indices.chunks(BATCH);
    for indices in bar("measuring accuracy", chunks.len()).wrap_iter(chunks) {
        let Batch { inputs, labels } = feed.batch(indices);
        let labels = labels.to_i64().map_err(|e| e.to_string())?;
        let mut activation = inputs;
        for (place, stage) in stages.iter().enumerate() {
            for (codec, right) in codecs.iter().zip(&mut right[place]) {
                let tail = &stages[place..];
                let output =
                    tail_of(&activation, codec.as_ref(), tail).map_err(|e| e.to_string())?;
                *right += count(&output, &labels)?;
            }
            activation = stage.infer(&activation).map_err(|e| e.to_string())?;
        }
    }
    let share = |n: usize| n as f64 / indices.len() as f64;
    let of = |(split_point, counts): (usize, Vec<usize>)| {
        let names = codecs.iter().map(|codec| codec.name().to_string());
        let all = names.zip(counts);
        all.map(|(codec, n)| Accuracy { split_point, codec, share: share(n) }).collect::<Vec<_>>()
    };
    Ok(right.into_iter().enumerate().flat_map(of).collect())
}

/// Each stage on its own.
fn stages(config: &Config, library: &Library, target: &Deployed) -> Result<Vec<Segment>, String> {
    let spec = &config.model;
    let names = spec.stage_names();
    let build = |i: usize| {
        let mut source =
            library.source(&target.weights, &names[i..=i]).map_err(|e| e.to_string())?;
        Segment::build_in(config.quantize.weights, spec, i..i + 1, source.as_mut())
            .map_err(|e| format!("{}: {e}", target.weights))
    };
    (0..names.len()).map(build).collect()
}

fn tail_of(
    activation: &NamedTensors,
    codec: &dyn Codec,
    tail: &[Segment],
) -> Result<NamedTensors, ModelError> {
    let received = decode_own(wire::encode(activation.clone(), codec), codec)?;
    tail.iter().try_fold(received, |x, stage| stage.infer(&x))
}

fn count(output: &NamedTensors, labels: &[i64]) -> Result<usize, String> {
    let (_, logits) = output.first().ok_or("the model gave no output")?;
    let values = logits.to_f32().map_err(|e| e.to_string())?;
    let classes = values.len() / labels.len().max(1);
    let rows = values.chunks(classes.max(1));
    Ok(rows.zip(labels).filter(|(row, label)| argmax(row) as i64 == **label).count())
}
