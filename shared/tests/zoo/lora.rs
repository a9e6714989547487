//! LoRA adapters of BERT, GPT-2 and Llama against Hugging Face's PEFT: the losses of split training, with
//! adapters on either side of the cut, and what PEFT makes of the files that are written here.

use std::{collections::BTreeMap, fs, path::Path};

use cleave_shared::{
    checkpoint::peft,
    model::{
        LoadedWeights, LoraSpec, LossKind, ModelSpec, SeededWeights, Segment, Side, Sides, Weights,
        lora::is_factor,
    },
    tensor::HostTensor,
    wire::NamedTensors,
};
use serde_json::json;

use crate::{
    bert, decoder,
    reference::{Reference, assert_close, at, read_tensors, run_python},
    splits::{SplitTraining, adam},
};

/// Losses and factors of the training.
const TRAINING: f64 = 1e-3;
/// Logits of a model with an adapter that was read from files.
const INFERENCE: f64 = 1e-4;

/// A base model, and how transformers has it.
struct Adapted {
    spec: ModelSpec,
    /// It has batches to train on.
    reference: Reference,
    /// transformers' class.
    class: &'static str,
    /// What the class puts before our names.
    prefix: &'static str,
    inputs: Vec<Input>,
    targets: &'static [&'static str],
}

/// An input of the model.
struct Input {
    name: &'static str,
    /// transformers' argument.
    argument: &'static str,
    /// Tensors of the reference: for the logits, and of all steps.
    stored: [&'static str; 2],
}

/// Where adapters learn, and the split point; at the middle both sides have some.
const CASES: [(&str, Sides, [usize; 2]); 5] = [
    ("edge", Sides::Edge, [1, 2]),
    ("cloud", Sides::Cloud, [1, 2]),
    ("both", Sides::Both, [1, 2]),
    ("all-cloud", Sides::Both, [0, 1]),
    ("all-edge", Sides::Both, [1, 1]),
];

impl Adapted {
    /// Trains and exports each case here, then lets PEFT do the same.
    fn is_peft(&self) {
        let folder = self.reference.weights_path().parent().unwrap().to_path_buf();
        let stored = |which: usize| {
            let pairs = self.inputs.iter().map(|i| (i.argument, i.stored[which]));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let inputs = json!({ "logits": stored(0), "steps": stored(1) });
        let case = json!({ "optimizer": adam(0.01), "inputs": inputs });
        fs::write(folder.join("adapter.json"), case.to_string()).unwrap();
        let ours = CASES.map(|case| self.trained(&folder, case));
        run_python("peft_reference.py", &[&folder, Path::new(self.class)]);
        for ((name, ..), ours) in CASES.iter().zip(ours) {
            self.compare(name, &folder.join(name).join("result.safetensors"), &ours);
        }
    }

    fn lora(&self, sides: Sides) -> LoraSpec {
        let targets = self.targets.iter().map(ToString::to_string).collect();
        LoraSpec { rank: 4, alpha: 8.0, seed: 5, targets, sides }
    }

    fn trained(&self, folder: &Path, (name, sides, split): (&str, Sides, [usize; 2])) -> Ours {
        let (spec, lora) = (&self.spec, self.lora(sides));
        let split = spec.stage_count() * split[0] / split[1];
        let halves = self.halves(split, &lora, &mut SeededWeights(lora.seed));
        let write = |name: &str, factors: &NamedTensors| {
            let folder = folder.join(name);
            peft::write(&folder, spec, factors, lora.scale(), self.prefix).unwrap();
        };
        write(&format!("{name}/first"), &factors_of(&halves));
        let first = logits(&halves, &self.batch(None));
        let labels = self.reference.tensor("step_labels");
        let steps = labels.shape()[0];
        let mut training = SplitTraining::of(halves, LossKind::CrossEntropy, adam(0.01));
        let step = |i| training.step(&self.batch(Some(i)), &at(labels, i));
        let losses: Vec<f32> = (0..steps).map(step).collect();
        let halves = training.into_halves();
        let factors = factors_of(&halves);
        write(&format!("{name}/trained"), &factors);
        let trained = logits(&halves, &self.batch(None));
        // What was written is read again, and goes on as it was.
        let read = peft::read(&folder.join(name).join("trained"), spec).unwrap();
        let stored = read.stages.into_iter().flat_map(|stage| stage.weights).collect();
        let halves = self.halves(split, &lora, &mut LoadedWeights::new(stored));
        assert_eq!(logits(&halves, &self.batch(None)), trained, "{name}: read again");
        Ours { losses: HostTensor::from_f32(vec![steps], &losses), factors, first, trained }
    }

    fn halves(&self, split: usize, lora: &LoraSpec, factors: &mut dyn Weights) -> [Segment; 2] {
        let (spec, file) = (&self.spec, self.reference.weights());
        let ranges = [(Side::Edge, 0..split), (Side::Cloud, split..spec.stage_count())];
        ranges.map(|(side, range)| {
            let mut base = file.source(spec.prefixes());
            let here = lora.sides.include(side).then_some(lora);
            Segment::build_adapted(spec, range, &mut base, here, factors).unwrap()
        })
    }

    /// The inputs of one step, or those that the logits are of.
    fn batch(&self, step: Option<usize>) -> NamedTensors {
        let stored = |name| self.reference.tensor(name);
        let tensor = |input: &Input| {
            let tensor = match step {
                Some(i) => at(stored(input.stored[1]), i),
                None => stored(input.stored[0]).clone(),
            };
            (input.name.to_string(), tensor)
        };
        self.inputs.iter().map(tensor).collect()
    }

    fn compare(&self, name: &str, path: &Path, ours: &Ours) {
        let peft = read_tensors(path);
        let what = format!("{} LoRA {name}", self.spec.family_name());
        let close = |key: &str, found: &HostTensor, bound| {
            let expected = peft.get(key).unwrap_or_else(|| panic!("{what}: PEFT has no {key}"));
            assert_close(&format!("{what}: {key}"), found, expected, bound)
        };
        let read = [("first", &ours.first), ("trained", &ours.trained)]
            .map(|(key, logits)| close(key, logits, INFERENCE));
        let losses = close("losses", &ours.losses, TRAINING);
        let trained = peft.keys().filter(|key| key.starts_with("final/")).count();
        assert_eq!(trained, ours.factors.len(), "{what}: the same layers have adapters");
        let factor = |(name, tensor): &(String, HostTensor)| {
            // The head is beside the model that the prefix names.
            let prefix = if name.starts_with("lm_head.") { "" } else { self.prefix };
            let key = format!("final/{prefix}{name}");
            close(&key, tensor, TRAINING)
        };
        let factors = ours.factors.iter().map(factor).fold(0.0, f64::max);
        println!(
            "{what}: losses {losses:.1e}, factors {factors:.1e}, logits {:.1e} and {:.1e}",
            read[0], read[1]
        );
    }
}

/// What was trained here.
struct Ours {
    losses: HostTensor,
    factors: NamedTensors,
    /// Logits before and after.
    first: HostTensor,
    trained: HostTensor,
}

fn factors_of(halves: &[Segment; 2]) -> NamedTensors {
    let weights = halves.iter().flat_map(Segment::weights);
    weights.filter(|(name, _)| is_factor(name)).collect()
}

fn logits(halves: &[Segment; 2], inputs: &NamedTensors) -> HostTensor {
    let cut = halves[0].infer(inputs).unwrap();
    halves[1].infer(&cut).unwrap().remove(0).1
}

fn decoder(spec: ModelSpec, class: &'static str, targets: &'static [&'static str]) -> Adapted {
    let reference = decoder::reference(&spec);
    let prefix = spec.prefixes()[0];
    let stored = ["input", "step_inputs"];
    let inputs = vec![Input { name: "x", argument: "input_ids", stored }];
    Adapted { spec, reference, class, prefix, inputs, targets }
}

#[test]
fn a_bert_classifier_with_adapters_is_peft() {
    let spec = bert::classifier();
    let reference = bert::reference(&spec, 20);
    let input = |name, step| Input { name, argument: name, stored: [name, step] };
    let inputs = vec![
        input("input_ids", "step_input_ids"),
        input("attention_mask", "step_attention_mask"),
        input("token_type_ids", "step_token_type_ids"),
    ];
    let class = "BertForSequenceClassification";
    let targets = &["query", "value", "intermediate.dense", "output.dense"];
    Adapted { spec, reference, class, prefix: "", inputs, targets }.is_peft();
}

#[test]
fn a_tied_gpt2_with_adapters_is_peft() {
    decoder(decoder::gpt2(true), "GPT2LMHeadModel", &["c_attn", "c_proj", "c_fc"]).is_peft();
}

#[test]
fn a_gpt2_with_adapters_of_its_own_head_is_peft() {
    decoder(decoder::gpt2(false), "GPT2LMHeadModel", &["c_attn", "lm_head"]).is_peft();
}

#[test]
fn a_tied_llama_with_adapters_is_peft() {
    let targets = &["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"];
    decoder(decoder::llama(true), "LlamaForCausalLM", targets).is_peft();
}
