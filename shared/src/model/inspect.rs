//! What a model costs, stage by stage, and what crosses each cut, without its weights.
//!
//! Each stage is built once against [`Counter`], a source of weights that gives untouched zeros (which
//! take no memory) and counts them, and is dropped again: a model of any size is inspected in the
//! memory of none.

use std::collections::HashSet;

use burn::tensor::{Device, TensorData};
use serde::Serialize;

use super::{Dim, ModelError, ModelSpec, ParamSpec, Port, Weights};

/// A model's stages and cuts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    pub family: &'static str,
    pub spec: ModelSpec,
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    /// Trained values; one that several stages share counts once.
    pub parameters: u64,
    /// Values that are kept beside them, such as running statistics.
    pub buffers: u64,
    /// Of one sample at its largest; see [`StagePlan::flops`](super::StagePlan::flops).
    pub flops: u64,
    pub stages: Vec<StageInfo>,
    /// One for each split point, 0 first.
    pub cuts: Vec<CutInfo>,
}

/// A tensor of one sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: &'static str,
    /// At its largest, without the batch.
    pub shape: Vec<usize>,
    /// Which extents of `shape` may be smaller.
    pub variable: Vec<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageInfo {
    pub index: usize,
    pub name: String,
    pub outputs: Vec<TensorInfo>,
    /// What this stage holds, shared values included.
    pub parameters: u64,
    pub buffers: u64,
    pub flops: u64,
    /// Bytes of its outputs.
    pub output_bytes: u64,
    /// This stage's and all before it, shared values once.
    pub cumulative_parameters: u64,
    pub cumulative_flops: u64,
}

/// One split point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CutInfo {
    pub split_point: usize,
    /// The stage before the cut; none at 0.
    pub after: Option<String>,
    /// What a sample sends to the cloud, FP32 and INT64 as they are; nothing where all is on the edge.
    pub bytes: u64,
    pub tensors: Vec<TensorInfo>,
    pub head_flops: u64,
    pub head_parameters: u64,
    /// On the Pareto front of edge computation against bytes: no other cut has at most its FLOPs in the
    /// head and at most its bytes across the link; of equal ones the first.
    pub sensible: bool,
}

impl ModelSpec {
    /// Counts parameters, FLOPs and bytes; nothing is read from disk.
    pub fn inspect(&self) -> Result<Inspection, ModelError> {
        let mut stages: Vec<StageInfo> = Vec::new();
        let mut counter = Counter::default();
        let device = Device::flex();
        for (index, plan) in self.stages().into_iter().enumerate() {
            counter.begin_stage();
            drop(plan.build(&mut counter, &device)?);
            let before = stages.last().map_or(0, |s| s.cumulative_flops);
            stages.push(StageInfo {
                index,
                parameters: counter.stage.parameters,
                buffers: counter.stage.buffers,
                flops: plan.flops,
                output_bytes: bytes(&plan.outputs),
                outputs: infos(&plan.outputs),
                cumulative_parameters: counter.distinct.parameters,
                cumulative_flops: before + plan.flops,
                name: plan.name,
            });
        }
        Ok(Inspection {
            family: self.family_name(),
            spec: self.clone(),
            inputs: infos(&self.inputs()),
            outputs: infos(&self.outputs()),
            parameters: counter.distinct.parameters,
            buffers: counter.distinct.buffers,
            flops: stages.last().map_or(0, |s| s.cumulative_flops),
            cuts: cuts(&self.inputs(), &stages),
            stages,
        })
    }
}

fn cuts(inputs: &[Port], stages: &[StageInfo]) -> Vec<CutInfo> {
    let first = CutInfo {
        split_point: 0,
        after: None,
        bytes: bytes(inputs),
        tensors: infos(inputs),
        head_flops: 0,
        head_parameters: 0,
        sensible: false,
    };
    let behind = |stage: &StageInfo| {
        let inside = stage.index + 1 < stages.len();
        CutInfo {
            split_point: stage.index + 1,
            after: Some(stage.name.clone()),
            bytes: if inside { stage.output_bytes } else { 0 },
            tensors: if inside { stage.outputs.clone() } else { Vec::new() },
            head_flops: stage.cumulative_flops,
            head_parameters: stage.cumulative_parameters,
            sensible: false,
        }
    };
    let mut cuts: Vec<CutInfo> = [first].into_iter().chain(stages.iter().map(behind)).collect();
    // FLOPs never fall with the split point, so only what comes before can be as good or better.
    let mut least = u64::MAX;
    let mut next = 0;
    while next < cuts.len() {
        let flops = cuts[next].head_flops;
        let end = cuts.iter().skip(next).take_while(|c| c.head_flops == flops).count() + next;
        let best = (next..end).min_by_key(|&i| cuts[i].bytes).unwrap_or(next);
        if cuts[best].bytes < least {
            least = cuts[best].bytes;
            cuts[best].sensible = true;
        }
        next = end;
    }
    cuts
}

fn bytes(ports: &[Port]) -> u64 {
    ports.iter().map(|p| p.bytes() as u64).sum()
}

fn infos(ports: &[Port]) -> Vec<TensorInfo> {
    let info = |p: &Port| TensorInfo {
        name: p.name.clone(),
        dtype: p.dtype.name(),
        shape: p.largest(),
        variable: p.shape.iter().map(|d| matches!(d, Dim::UpTo(_))).collect(),
    };
    ports.iter().map(info).collect()
}

#[derive(Default)]
struct Counts {
    parameters: u64,
    buffers: u64,
}

/// Counts what stages ask for.
#[derive(Default)]
struct Counter {
    stage: Counts,
    distinct: Counts,
    seen: HashSet<String>,
}

impl Counter {
    fn begin_stage(&mut self) {
        self.stage = Counts::default();
    }

    /// Whether this name was not asked for before.
    fn is_new(&mut self, param: &ParamSpec<'_>) -> bool {
        self.seen.insert(param.name.into())
    }
}

fn size(param: &ParamSpec<'_>) -> u64 {
    param.shape.iter().product::<usize>() as u64
}

/// Zeros that are not written: the allocator maps fresh pages, which stay unused.
fn zeros(param: &ParamSpec<'_>) -> TensorData {
    TensorData::new(vec![0.0f32; param.shape.iter().product()], param.shape.to_vec())
}

impl Weights for Counter {
    fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        self.stage.parameters += size(param);
        if self.is_new(param) {
            self.distinct.parameters += size(param);
        }
        Ok(zeros(param))
    }

    fn buffer(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        self.stage.buffers += size(param);
        if self.is_new(param) {
            self.distinct.buffers += size(param);
        }
        Ok(zeros(param))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_cnn_is_counted_by_hand() {
        let found = ModelSpec::builtin("lenet").unwrap().inspect().unwrap();
        // 1·32·9+32, 32·64·9+64, 256·128+128, 128·10+10
        assert_eq!(found.parameters, 320 + 18_496 + 32_896 + 1_290);
        assert_eq!(found.stages.len(), 6);
        assert_eq!(found.stages[0].flops, 2 * 9 * 32 * 64);
        let bytes: Vec<u64> = found.cuts.iter().map(|c| c.bytes).collect();
        assert_eq!(bytes, [256, 8192, 2048, 4096, 1024, 512, 0]);
        // The input is as small as anything behind the convolutions: only no computation, or all of it.
        let sensible: Vec<usize> =
            found.cuts.iter().filter(|c| c.sensible).map(|c| c.split_point).collect();
        assert_eq!(sensible, [0, 6]);
        assert_eq!(found.cuts[6].head_parameters, found.parameters);
    }

    #[test]
    fn a_front_has_no_cut_that_another_beats() {
        for name in ModelSpec::BUILTIN {
            let found = ModelSpec::builtin(name).unwrap().inspect().unwrap();
            let beats = |a: &CutInfo, b: &CutInfo| {
                let better = (a.head_flops, a.bytes) != (b.head_flops, b.bytes);
                let first = better || a.split_point < b.split_point;
                a.head_flops <= b.head_flops && a.bytes <= b.bytes && first
            };
            for cut in &found.cuts {
                let beaten = found.cuts.iter().any(|other| beats(other, cut));
                assert_eq!(cut.sensible, !beaten, "{name} at {}", cut.split_point);
            }
        }
    }

    /// Counts of torchvision 0.29 and transformers 5.24.
    #[test]
    fn known_models_have_the_known_number_of_parameters() {
        let known = [
            ("alexnet", 61_100_840),
            ("vgg16", 138_357_544),
            ("resnet18", 11_689_512),
            ("resnet50", 25_557_032),
            ("mobilenetv2", 3_504_872),
            ("gpt2", 124_439_808),
        ];
        for (name, parameters) in known {
            if let Some(spec) = ModelSpec::builtin(name) {
                assert_eq!(spec.inspect().unwrap().parameters, parameters, "{name}");
            }
        }
    }
}
