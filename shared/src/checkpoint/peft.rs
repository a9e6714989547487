//! LoRA adapters as Hugging Face's PEFT keeps them: a folder with `adapter_config.json` and
//! `adapter_model.safetensors`, whose tensors are named `base_model.model.<layer>.lora_A.weight`
//! (<https://huggingface.co/docs/peft/developer_guides/checkpoint>).

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use burn::tensor::{Device, TensorData};
use serde_json::{Value, json};

use super::{CheckpointError, atomic::io_error, write_atomic, write_weights};
use crate::{
    model::{
        Init, ModelError, ModelSpec, ParamSpec, SeededWeights, StageState, WeightFile, Weights,
        lora::{factor_names, is_factor, layer_of},
    },
    tensor::HostTensor,
    wire::NamedTensors,
};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Why a folder is no adapter of this model.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{path}: {problem}")]
    Refused { path: String, problem: String },
}

/// Adapters of a model, by stage, and how much they count.
pub struct PeftAdapter {
    /// Every stage of the model; one without adapters has no tensors.
    pub stages: Vec<StageState>,
    /// `alpha / rank`.
    pub scale: f64,
}

/// Writes factors, in our names, to a folder. `prefix` is what the class that PEFT is to load them into
/// puts before our names, such as `transformer.`.
pub fn write(
    folder: &Path,
    spec: &ModelSpec,
    factors: &NamedTensors,
    scale: f64,
    prefix: &str,
) -> Result<(), PeftError> {
    let refuse = |problem: &str| refused(folder, problem.into());
    let layers: Vec<&str> = factors.iter().filter_map(|(name, _)| layer_of(name)).collect();
    let first = factors.iter().find(|(name, _)| name.ends_with(".lora_A.weight"));
    let rank = first.and_then(|(_, a)| a.shape().first().copied());
    let rank = rank.ok_or_else(|| refuse("there are no adapters to write"))?;
    let input_major = layers.iter().any(|l| spec.is_input_major(&format!("{l}.weight")));
    let mut layers: Vec<String> = layers.iter().map(|layer| prefixed(prefix, layer)).collect();
    layers.dedup();
    let config = json!({
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": scale * rank as f64,
        "lora_dropout": 0.0,
        "target_modules": layers,
        "fan_in_fan_out": input_major,
        "bias": "none",
        "inference_mode": true,
    });
    fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
    let named = |(name, tensor): &(String, HostTensor)| {
        (format!("{PREFIX}{}", prefixed(prefix, name)), tensor.clone())
    };
    write_weights(&folder.join(TENSORS), &factors.iter().map(named).collect())?;
    let text = serde_json::to_vec_pretty(&config).expect("plain data");
    Ok(write_atomic(&folder.join(CONFIG), &text)?)
}

/// The head of a language model is beside what the prefix names: `lm_head`, `transformer.h.0`.
fn prefixed(prefix: &str, name: &str) -> String {
    let beside = name.split('.').next() == Some("lm_head");
    if beside { name.to_string() } else { format!("{prefix}{name}") }
}

/// Reads a folder that PEFT wrote, and checks that its adapters fit this model.
pub fn read(folder: &Path, spec: &ModelSpec) -> Result<PeftAdapter, PeftError> {
    let (rank, scale) = read_config(&folder.join(CONFIG))?;
    let path = folder.join(TENSORS);
    let refuse = |problem: String| refused(&path, problem);
    let file = Arc::new(WeightFile::open(&path).map_err(|e| refuse(e.problem))?);
    let mut source = file.source(&[]);
    let layers = linear_layers(spec)?;
    let mut found: HashMap<String, HostTensor> = HashMap::new();
    for (name, shape) in file.tensors() {
        let own = name.strip_prefix(PREFIX).unwrap_or(name);
        if !is_factor(own) {
            return Err(refuse(format!("{name} is not a factor of LoRA")));
        }
        let (stem, end) = own.split_at(own.len() - ".lora_A.weight".len());
        let layer = known_layer(stem, spec, &layers);
        let layer =
            layer.ok_or_else(|| refuse(format!("{name}: the model has no layer {stem}")))?;
        let Layer { input, output, .. } = layers[layer];
        let expected = if end.contains("_A.") { [rank, input] } else { [output, rank] };
        if shape != expected {
            return Err(refuse(format!("{name}: expected shape {expected:?}, found {shape:?}")));
        }
        let data = source.data(&ParamSpec { name, shape, init: Init::Zeros })?;
        let values: Vec<f32> = data.iter::<f32>().collect();
        found.insert(format!("{layer}{end}"), HostTensor::from_f32(shape.to_vec(), &values));
    }
    let mut stages: Vec<StageState> = spec
        .stage_names()
        .into_iter()
        .map(|stage| StageState { stage, weights: Vec::new(), optimizer: Vec::new() })
        .collect();
    let mut names: Vec<&String> = layers.keys().collect();
    names.sort();
    for name in names {
        let [a, b] = factor_names(name);
        match (found.remove(&a), found.remove(&b)) {
            (Some(first), Some(second)) => {
                stages[layers[name].stage].weights.extend([(a, first), (b, second)]);
            }
            (None, None) => {}
            _ => return Err(refuse(format!("{name} has one factor of two"))),
        }
    }
    Ok(PeftAdapter { stages, scale })
}

/// Rank and scale.
fn read_config(path: &Path) -> Result<(usize, f64), PeftError> {
    let refuse = |problem: String| refused(path, problem);
    let bytes = fs::read(path).map_err(|e| io_error(path, e))?;
    let config: Value = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
    if config["peft_type"] != "LORA" {
        return Err(refuse(format!("peft_type is {}, not \"LORA\"", config["peft_type"])));
    }
    let plain = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        other => other == "none",
    };
    for key in ["use_dora", "rank_pattern", "alpha_pattern", "bias", "modules_to_save"] {
        if !plain(&config[key]) {
            return Err(refuse(format!("{key} is {}, which is not supported", config[key])));
        }
    }
    let rank = config["r"].as_u64().filter(|r| (1..=4096).contains(r));
    let rank = rank.ok_or_else(|| refuse(format!("r is {}, not 1 to 4096", config["r"])))?;
    let alpha = config["lora_alpha"].as_f64();
    let alpha = alpha.ok_or_else(|| refuse(format!("lora_alpha is {}", config["lora_alpha"])))?;
    let divisor = match config["use_rslora"] {
        Value::Bool(true) => (rank as f64).sqrt(),
        _ => rank as f64,
    };
    Ok((rank as usize, alpha / divisor))
}

struct Layer {
    stage: usize,
    input: usize,
    output: usize,
}

/// The model's linear layers by name.
fn linear_layers(spec: &ModelSpec) -> Result<HashMap<String, Layer>, ModelError> {
    /// Notes what is asked for; the values do not matter.
    struct Names(Vec<(String, Vec<usize>)>);
    impl Weights for Names {
        fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
            self.0.push((param.name.into(), param.shape.into()));
            SeededWeights(0).data(&ParamSpec { init: Init::Zeros, ..*param })
        }
    }
    let mut layers = HashMap::new();
    for (stage, plan) in spec.stages().iter().enumerate() {
        let mut names = Names(Vec::new());
        plan.build(&mut names, &Device::flex())?;
        for (name, shape) in names.0 {
            let (Some(layer), &[rows, columns]) = (name.strip_suffix(".weight"), &shape[..]) else {
                continue;
            };
            let [output, input] =
                if spec.is_input_major(&name) { [columns, rows] } else { [rows, columns] };
            layers.insert(layer.to_string(), Layer { stage, input, output });
        }
    }
    Ok(layers)
}

/// Our name of a layer that the file may call with or without the class's prefix.
fn known_layer<'a>(
    stem: &str,
    spec: &ModelSpec,
    layers: &'a HashMap<String, Layer>,
) -> Option<&'a String> {
    let shorter = spec.prefixes().iter().filter_map(|p| stem.strip_prefix(p)).map(str::to_string);
    let longer = spec.prefixes().iter().map(|p| format!("{p}{stem}"));
    let names = std::iter::once(stem.to_string()).chain(shorter).chain(longer);
    names.into_iter().find_map(|name| layers.get_key_value(&name)).map(|(name, _)| name)
}

fn refused(path: &Path, problem: String) -> PeftError {
    PeftError::Refused { path: path.display().to_string(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MlpSpec;

    fn spec() -> ModelSpec {
        ModelSpec::Mlp(MlpSpec { input: [1, 2, 2], hidden: vec![3], classes: 5 })
    }

    fn factors() -> NamedTensors {
        let ramp = |shape: [usize; 2], from: f32| {
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| from + i as f32).collect();
            HostTensor::from_f32(shape.into(), &values)
        };
        let [a, b] = factor_names("fc2");
        vec![(a, ramp([2, 3], 0.5)), (b, ramp([5, 2], -1.0))]
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &spec(), &factors(), 4.0, "net.").unwrap();
        let config = fs::read(dir.path().join(CONFIG)).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(2), &json!(8.0)));
        assert_eq!(config["target_modules"], json!(["net.fc2"]));
        assert!(
            matches!(read(dir.path(), &spec()), Err(PeftError::Refused { .. })),
            "net. is not known"
        );

        write(dir.path(), &spec(), &factors(), 4.0, "").unwrap();
        let adapter = read(dir.path(), &spec()).unwrap();
        assert_eq!(adapter.scale, 4.0);
        assert!(adapter.stages[0].weights.is_empty());
        assert_eq!(adapter.stages[1].weights, factors());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let wide = ModelSpec::Mlp(MlpSpec { input: [1, 2, 2], hidden: vec![4], classes: 5 });
        write(dir.path(), &spec(), &factors(), 4.0, "").unwrap();
        let error = read(dir.path(), &wide).err().unwrap().to_string();
        assert!(
            error.contains("fc2.lora_A.weight: expected shape [2, 4], found [2, 3]"),
            "{error}"
        );
        write(dir.path(), &spec(), &factors()[..1].to_vec(), 4.0, "").unwrap();
        let error = read(dir.path(), &spec()).err().unwrap().to_string();
        assert!(error.contains("fc2 has one factor of two"), "{error}");
        let path = dir.path().join(CONFIG);
        for (key, value) in
            [("use_dora", json!(true)), ("r", json!(0)), ("peft_type", json!("IA3"))]
        {
            let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            config[key] = value;
            fs::write(&path, config.to_string()).unwrap();
            let error = read(dir.path(), &spec()).err().unwrap().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
