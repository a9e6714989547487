//! Exits on disk: `exits/STAGE.safetensors` in the folder of the weights that they belong to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use cleave_shared::{
    checkpoint::{Labels, WeightsId, read_labelled, write_labelled},
    config::Config,
    model::{Exit, ExitHead, LoadedWeights, exit_sizes},
    wire::NamedTensors,
};

use crate::deploy::folder_of;

/// What a file says of itself: the weights and the model that the exit was trained with.
const WEIGHTS: &str = "weights";
const MODEL: &str = "model";

fn file(config: &Config, weights: &WeightsId, stage: &str) -> PathBuf {
    let folder = folder_of(&config.runs.dir, weights).join("exits");
    folder.join(format!("{stage}.safetensors"))
}

/// Writes an exit behind this stage; gives its file.
pub fn save(
    config: &Config,
    weights: &WeightsId,
    stage: &str,
    tensors: &NamedTensors,
) -> Result<PathBuf, String> {
    let path = file(config, weights, stage);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let labels = [(WEIGHTS, weights.to_string()), (MODEL, config.model.hash())];
    let labels = labels.map(|(key, value)| (key.to_string(), value)).into();
    write_labelled(&path, tensors, labels).map_err(|e| e.to_string())?;
    Ok(path)
}

/// The exits behind the first `split` stages, in their order. It is an error if there is none, or one of
/// other weights.
pub fn stored(config: &Config, weights: &WeightsId, split: usize) -> Result<Vec<Exit>, String> {
    let mut exits = Vec::new();
    for (i, stage) in config.model.stage_names().into_iter().take(split).enumerate() {
        let path = file(config, weights, &stage);
        if path.is_file() {
            exits.push(open(config, weights, &path, stage, i + 1)?);
        }
    }
    match exits.is_empty() {
        false => Ok(exits),
        true => Err(format!(
            "there are none for {weights} before split point {split}: edge-node exits train makes some"
        )),
    }
}

fn open(
    config: &Config,
    weights: &WeightsId,
    path: &Path,
    stage: String,
    after: usize,
) -> Result<Exit, String> {
    let shown = path.display();
    let sizes = exit_sizes(&config.model, after).map_err(|e| format!("{shown}: {e}"))?;
    let (tensors, labels) = read_labelled(path).map_err(|e| e.to_string())?;
    check(&labels, WEIGHTS, &weights.to_string())
        .and_then(|()| check(&labels, MODEL, &config.model.hash()))
        .map_err(|problem| {
            format!("{shown}: {problem}: train it again with edge-node exits train")
        })?;
    let head = ExitHead::new(sizes, &mut LoadedWeights::new(tensors), &Device::flex());
    let head = head.map_err(|e| format!("{shown}: {e}"))?;
    Ok(Exit { stage, after, head })
}

fn check(labels: &Labels, key: &str, wanted: &str) -> Result<(), String> {
    match labels.get(key) {
        Some(found) if found == wanted => Ok(()),
        found => {
            let found = found.map_or("unknown", String::as_str);
            Err(format!("its {key} is {found}, not {wanted}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use cleave_shared::{
        model::{EXIT_BIAS, EXIT_WEIGHT},
        tensor::HostTensor,
    };

    use super::*;

    #[test]
    fn exits_of_other_weights_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.runs.dir = folder.path().into();
        let run = |step| WeightsId::Run { run: "a".into(), step };
        let none = stored(&config, &run(3), 4).unwrap_err();
        assert!(none.contains("there are none for run:a:3 before split point 4"), "{none}");
        let tensors = |classes: usize| {
            let weight = HostTensor::from_f32(vec![classes, 256], &vec![0.5; classes * 256]);
            let bias = HostTensor::from_f32(vec![classes], &vec![0.0; classes]);
            vec![(EXIT_WEIGHT.to_string(), weight), (EXIT_BIAS.to_string(), bias)]
        };
        save(&config, &run(3), "pool2", &tensors(10)).unwrap();
        let exits = stored(&config, &run(3), 4).unwrap();
        assert_eq!((exits[0].stage.as_str(), exits[0].after, exits.len()), ("pool2", 4, 1));
        assert!(stored(&config, &run(3), 3).is_err(), "it is behind the cut");
        let text = stored(&config, &run(4), 4).unwrap_err();
        assert!(text.contains("its weights is run:a:3, not run:a:4"), "{text}");
        save(&config, &run(3), "pool2", &tensors(9)).unwrap();
        let text = stored(&config, &run(3), 4).unwrap_err();
        assert!(text.contains("pool2.safetensors: ") && text.contains("[10, 256]"), "{text}");
    }
}
