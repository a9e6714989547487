//! Trains exits behind a model that stays as it is.
//!
//! Nothing before an exit changes, so what it looks at is computed once for each sample, and so are the
//! logits of the uncut model; then each exit is a linear layer over features that lie in memory. It
//! learns the labels, and the uncut model's softmax, which knows what a sample looks like besides.

use burn::{
    optim::{AdamConfig, GradientsParams},
    tensor::{Device, Tensor},
};
use cleave_shared::{
    config::Config,
    data::{BatchPlan, Part},
    link::Link,
    model::{ExitHead, ModelError, SeededWeights, loss},
    wire::NamedTensors,
};

use super::{
    place,
    samples::{Rows, Samples},
    stored::save,
};
use crate::{
    bar::bar,
    chosen::Chosen,
    deploy::{Deployer, Target},
    stack,
};

const BATCH: usize = 32;
const LEARNING_RATE: f64 = 0.01;
/// Of the uncut model's softmax, and how much it counts beside the label.
const TEMPERATURE: f64 = 2.0;
const TAUGHT: f64 = 0.5;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run whose weights are meant; what is deployed without it.
    pub run: Option<String>,
    /// Stages by name or number, one or more.
    pub after: Vec<String>,
    pub epochs: u64,
}

/// Trains and stores the exits; gives their files. The error is one line.
pub async fn train(config: &Config, options: &Options) -> Result<Vec<String>, String> {
    let chosen = Chosen::open(config, options.run.as_deref())?;
    let places = options.after.iter().map(|asked| place(&chosen.config, asked));
    let mut places = places.collect::<Result<Vec<usize>, _>>()?;
    places.sort_unstable();
    places.dedup();
    let deepest = places.last().copied().unwrap_or(0);
    bring_stages(&chosen, deepest).await?;
    let samples = Samples::collect(&chosen, &places, Part::Train).await?;
    let names = chosen.config.model.stage_names();
    let mut files = Vec::new();
    for (place, features) in places.iter().zip(&samples.features) {
        let tensors = learn(features, &samples, options.epochs, chosen.config.seed);
        let tensors = tensors.map_err(|e| e.to_string())?;
        let file = save(&chosen.config, &chosen.weights, &names[place - 1], &tensors)?;
        files.push(file.display().to_string());
    }
    Ok(files)
}

/// Fetches weights of stages before an exit that only the cloud holds.
async fn bring_stages(chosen: &Chosen, split: usize) -> Result<(), String> {
    let Chosen { config, weights, .. } = chosen;
    let codec = config.codec.activation.clone();
    let link = Link::new(config.link_profile(), config.link.seed);
    let client = stack::client(config, &link)?;
    let deployer = Deployer::new(config, client)?;
    deployer.bring_head(&Target { split, codec, weights: weights.clone() }).await
}

fn learn(
    features: &Rows,
    samples: &Samples,
    epochs: u64,
    seed: u64,
) -> Result<NamedTensors, ModelError> {
    let device = Device::flex().autodiff();
    let (mean, deviation) = features.spread();
    let [mean, deviation] =
        [mean, deviation].map(|values| Tensor::<1>::from_floats(&values[..], &device));
    let Samples { uncut, labels, .. } = samples;
    // Both start at zero: the loss has one minimum.
    let mut head = ExitHead::new([features.width, uncut.width], &mut SeededWeights(seed), &device)?;
    let mut optimizer = AdamConfig::new().init();
    let plan = BatchPlan::new((0..labels.len()).collect(), BATCH, seed);
    let plan = plan.map_err(|e| ModelError::Training(e.to_string()))?;
    let steps = epochs * plan.steps_per_epoch();
    for step in bar("training an exit", steps as usize).wrap_iter(1..=steps) {
        let batch = plan.batch(step);
        let raw = features.tensor(&batch, &device);
        let x = (raw - mean.clone().unsqueeze()) / deviation.clone().unsqueeze();
        let logits = head.forward(x);
        let truth: Vec<i64> = batch.iter().map(|&i| labels[i]).collect();
        let hard = loss::cross_entropy(logits.clone(), &truth, &device)?;
        let soft = loss::distillation(logits, uncut.tensor(&batch, &device), TEMPERATURE);
        let total = hard * (1.0 - TAUGHT) + soft * TAUGHT;
        let gradients = GradientsParams::from_grads(total.backward(), &head);
        head = optimizer.step(LEARNING_RATE, head, gradients);
    }
    Ok(head.unstandardised(mean, deviation))
}

#[cfg(test)]
mod tests {
    use cleave_shared::model::{LoadedWeights, loss::argmax};

    use super::*;

    #[test]
    fn an_exit_learns_the_labels_from_features_of_any_scale() {
        // Two classes that a line separates, features a thousand apart in size.
        let point = |i: usize| [(i % 20) as f32 * 100.0, (i / 20) as f32 * 0.1 + 5.0];
        let values: Vec<f32> = (0..400).flat_map(point).collect();
        let label = |i: usize| i64::from(point(i)[0] / 100.0 > (point(i)[1] - 5.0) * 10.0);
        let labels: Vec<i64> = (0..400).map(label).collect();
        let taught = labels.iter().flat_map(|&l| [1.0 - l as f32, l as f32].map(|v| v * 8.0));
        let uncut = Rows { width: 2, values: taught.collect() };
        let features = Rows { width: 2, values };
        let samples = Samples { features: vec![features.clone()], uncut, labels: labels.clone() };
        let tensors = learn(&features, &samples, 40, 1).unwrap();
        assert_eq!(tensors, learn(&features, &samples, 40, 1).unwrap(), "the same seed");
        let head =
            ExitHead::new([2, 2], &mut LoadedWeights::new(tensors), &Device::flex()).unwrap();
        let all: Vec<usize> = (0..400).collect();
        let logits = head.forward(features.tensor(&all, &Device::flex())).into_data();
        let logits: Vec<f32> = logits.iter::<f32>().collect();
        let right = logits.chunks(2).zip(&labels).filter(|(row, l)| argmax(row) as i64 == **l);
        assert!(right.count() > 380);
    }
}
