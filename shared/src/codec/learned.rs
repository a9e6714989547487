//! A learned bottleneck as a codec: `bottleneck:RUN`, or `bottleneck:RUN:STEP` for one of its checkpoints.
//!
//! It belongs to one split point of one set of weights, and each node has its half of it in the run's folder:
//! the edge the encoder, the cloud the decoder. The code's values are between -1 and 1, and cross as
//! `round(127 · value)`, a byte each and nothing else: a value is off by 1/254 at most. What is not finite
//! crosses as -128 and decodes to NaN, which makes all that depends on it NaN.

use std::str::FromStr;

use bytes::Bytes;

use super::Codec;
use crate::{
    checkpoint::{RunStore, check_run_id},
    model::{BottleneckSpec, LoadedWeights, ModelSpec, Segment, StagePlan},
    tensor::{HostTensor, TensorError},
};

/// What `codec.allowed` calls it.
pub const LEARNED: &str = "bottleneck";
const PREFIX: &str = "bottleneck:";
const LEVELS: f32 = 127.0;
const BROKEN: i8 = i8::MIN;

/// A name of this codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedName {
    pub run: String,
    /// The newest checkpoint without it. Between the nodes it is always named.
    pub step: Option<u64>,
}

impl LearnedName {
    /// Whether a codec's name is one of these, right or wrong.
    pub fn is_meant(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// The name of a checkpoint.
    pub fn at(&self, step: u64) -> String {
        format!("{PREFIX}{}:{step}", self.run)
    }
}

impl FromStr for LearnedName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wrong = || format!("{name:?}: expected {PREFIX}RUN or {PREFIX}RUN:STEP");
        let rest = name.strip_prefix(PREFIX).ok_or_else(wrong)?;
        let (run, step) = match rest.split_once(':') {
            None => (rest, None),
            Some((run, step)) => (run, Some(step.parse().map_err(|_| wrong())?)),
        };
        check_run_id(run).map_err(|_| wrong())?;
        Ok(Self { run: run.into(), step })
    }
}

/// One node's half of a bottleneck.
pub struct Learned {
    name: String,
    spec: BottleneckSpec,
    /// What crosses the cut, by the model's name of it.
    tensor: String,
    half: Half,
}

enum Half {
    Encoder(Segment),
    Decoder(Segment),
}

/// Where a bottleneck is used, and which of its checkpoints.
pub struct Place<'a> {
    pub store: &'a RunStore,
    pub model: &'a ModelSpec,
    pub split: usize,
    pub name: &'a LearnedName,
    pub step: u64,
}

impl Learned {
    /// The edge's half.
    pub fn encoder(spec: &BottleneckSpec, place: &Place<'_>) -> Result<Self, String> {
        let half = load(spec.encoder(place.model, place.split)?, place)?;
        Self::new(spec, place, Half::Encoder(half))
    }

    /// The cloud's half.
    pub fn decoder(spec: &BottleneckSpec, place: &Place<'_>) -> Result<Self, String> {
        let half = load(spec.decoder(place.model, place.split)?, place)?;
        Self::new(spec, place, Half::Decoder(half))
    }

    fn new(spec: &BottleneckSpec, place: &Place<'_>, half: Half) -> Result<Self, String> {
        let (name, tensor) = (place.name.at(place.step), spec.port(place.model, place.split)?.name);
        Ok(Self { name, spec: spec.clone(), tensor, half })
    }

    fn problem(&self, problem: String) -> TensorError {
        TensorError::Encoding { codec: self.name.clone(), problem }
    }

    /// Runs a half on the one tensor.
    fn run(&self, segment: &Segment, tensor: HostTensor) -> Result<HostTensor, TensorError> {
        let input = vec![(self.tensor.clone(), tensor)];
        let output = segment.infer(&input).map_err(|e| self.problem(e.to_string()))?;
        let first = output.into_iter().next().map(|(_, tensor)| tensor);
        first.ok_or_else(|| self.problem("it gave nothing".into()))
    }

    fn code(&self, tensor: HostTensor) -> Result<Bytes, TensorError> {
        let Half::Encoder(encoder) = &self.half else {
            return Err(self.problem("the encoder is the edge's".into()));
        };
        let code = self.run(encoder, tensor)?.to_f32()?;
        Ok(code.into_iter().map(to_byte).collect::<Vec<u8>>().into())
    }
}

fn load(plan: StagePlan, place: &Place<'_>) -> Result<Segment, String> {
    let Place { store, name, step, .. } = place;
    let files = store.read(&name.run, *step, &plan.name).map_err(|e| e.to_string())?;
    let half = Segment::of_stage(&plan, &mut LoadedWeights::new(files.weights));
    half.map_err(|e| format!("{}: {e}", name.at(*step)))
}

fn to_byte(value: f32) -> u8 {
    let code = if value.is_finite() { (value * LEVELS).round() as i8 } else { BROKEN };
    code as u8
}

fn from_byte(byte: u8) -> f32 {
    match byte as i8 {
        BROKEN => f32::NAN,
        code => f32::from(code) / LEVELS,
    }
}

impl Codec for Learned {
    fn name(&self) -> &str {
        &self.name
    }

    /// What does not fit the encoder, which is checked when it is deployed, has no bytes: the other side
    /// refuses it.
    fn encode(&self, tensor: HostTensor) -> Bytes {
        self.code(tensor).unwrap_or_else(|error| {
            tracing::error!(%error, "not encoded");
            Bytes::new()
        })
    }

    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
        let Half::Decoder(decoder) = &self.half else {
            return Err(self.problem("the decoder is the cloud's".into()));
        };
        let expected = self.most_bytes(&shape)?;
        if data.len() != expected {
            let text = format!("shape {shape:?} has {expected} bytes of code, not {}", data.len());
            return Err(self.problem(text));
        }
        let code = self.spec.code_shape(&shape).unwrap_or_default();
        let values: Vec<f32> = data.iter().map(|&byte| from_byte(byte)).collect();
        let tensor = self.run(decoder, HostTensor::from_f32(code, &values))?;
        match tensor.shape() == shape {
            true => Ok(tensor),
            false => Err(self.problem(format!("it gives {:?}, not {shape:?}", tensor.shape()))),
        }
    }

    fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError> {
        let code = self.spec.code_shape(shape).unwrap_or_default();
        let product = code.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        match product {
            Some(bytes) if !code.is_empty() => Ok(bytes),
            _ => Err(self.problem(format!("shape {shape:?} is not what it was trained for"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::Config,
        model::{SeededWeights, StageState},
    };

    /// Both halves for a cut of the default model, from seeds.
    fn pair(split: usize, spec: &BottleneckSpec) -> [Learned; 2] {
        let folder = tempfile::tempdir().unwrap();
        let (store, model) = (RunStore::new(folder.path()), Config::default().model);
        let state = |plan: StagePlan| {
            let segment = Segment::of_stage(&plan, &mut SeededWeights(2)).unwrap();
            let weights = segment.weights();
            StageState { stage: plan.name, weights, optimizer: Vec::new() }
        };
        let plans = [spec.encoder(&model, split).unwrap(), spec.decoder(&model, split).unwrap()];
        store.write("b", 3, &plans.map(state)).unwrap();
        let name = &"bottleneck:b".parse().unwrap();
        let place = Place { store: &store, model: &model, split, name, step: 3 };
        [Learned::encoder(spec, &place).unwrap(), Learned::decoder(spec, &place).unwrap()]
    }

    fn spec(width: usize, stride: usize) -> BottleneckSpec {
        BottleneckSpec { width, stride, seed: 2 }
    }

    proptest! {
        #[test]
        fn a_code_is_as_long_as_promised_and_rounded_by_half_a_step(
            batch in 1usize..4, cut in 0usize..3, scale in 0.01f32..100.0, seed: u32,
        ) {
            let (split, spec, shape) = [
                (4, spec(32, 2), vec![batch, 64, 2, 2]),
                (2, spec(3, 2), vec![batch, 32, 4, 4]),
                (5, spec(7, 1), vec![batch, 128]),
            ][cut].clone();
            let [edge, cloud] = pair(split, &spec);
            let count: usize = shape.iter().product();
            let value = |i: usize| {
                let mixed = (i as u32).wrapping_mul(2654435761).wrapping_add(seed) >> 8;
                (mixed as f32 / (1u32 << 24) as f32 - 0.5) * scale
            };
            let tensor = HostTensor::from_f32(shape.clone(), &(0..count).map(value).collect::<Vec<_>>());
            let Half::Encoder(encoder) = &edge.half else { panic!() };
            let exact = edge.run(encoder, tensor.clone()).unwrap().to_f32().unwrap();
            let bytes = edge.encode(tensor);
            prop_assert_eq!(bytes.len(), edge.most_bytes(&shape).unwrap());
            for (byte, value) in bytes.iter().zip(exact) {
                prop_assert!((from_byte(*byte) - value).abs() <= 0.5 / LEVELS + 1e-6);
            }
            let decoded = cloud.decode(shape.clone(), bytes).unwrap();
            prop_assert_eq!(decoded.shape(), &shape[..]);
        }

        #[test]
        fn foreign_bytes_are_an_error_or_a_tensor(
            shape in prop::collection::vec(0usize..70, 0..5),
            data in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let [_, cloud] = pair(4, &spec(32, 2));
            if let Ok(tensor) = cloud.decode(shape.clone(), data.into()) {
                prop_assert_eq!(tensor.shape(), &shape[..]);
            }
        }
    }

    #[test]
    fn what_is_broken_stays_visible() {
        let [edge, cloud] = pair(5, &spec(4, 1));
        let mut values = vec![0.5; 256];
        values[3] = f32::NAN;
        let bytes = edge.encode(HostTensor::from_f32(vec![2, 128], &values));
        let decoded = cloud.decode(vec![2, 128], bytes).unwrap().to_f32().unwrap();
        assert!(decoded[..128].iter().all(|v| v.is_nan()), "the sample that was broken");
        assert!(decoded[128..].iter().all(|v| v.is_finite()), "and no other");
    }

    #[test]
    fn each_node_has_its_half_and_what_does_not_fit_is_refused() {
        let [edge, cloud] = pair(4, &spec(32, 2));
        assert_eq!((edge.name(), cloud.name()), ("bottleneck:b:3", "bottleneck:b:3"));
        let text = edge.decode(vec![1, 64, 2, 2], vec![0; 32].into()).unwrap_err().to_string();
        assert!(text.contains("the decoder is the cloud's"), "{text}");
        let text = cloud.decode(vec![1, 64, 2, 2], vec![0; 31].into()).unwrap_err().to_string();
        assert!(text.contains("has 32 bytes of code, not 31"), "{text}");
        let text = cloud.decode(vec![1, 32, 2, 2], vec![0; 32].into()).unwrap_err().to_string();
        assert!(text.contains("it gives [1, 64, 2, 2], not [1, 32, 2, 2]"), "{text}");
        assert!(edge.encode(HostTensor::from_f32(vec![1, 3], &[0.0; 3])).is_empty());
    }

    #[test]
    fn names_are_runs_with_or_without_a_step() {
        let parsed = |name: &str| name.parse::<LearnedName>();
        let name = parsed("bottleneck:run-1").unwrap();
        assert_eq!(
            (name.run.as_str(), name.step, name.at(7)),
            ("run-1", None, "bottleneck:run-1:7".into())
        );
        assert_eq!(parsed("bottleneck:b:12").unwrap().step, Some(12));
        for bad in ["bottleneck:", "bottleneck:../a", "bottleneck:a:b", "bottleneck:a:1:2", "int8"]
        {
            assert!(parsed(bad).unwrap_err().contains("expected bottleneck:RUN"), "{bad}");
        }
    }
}
