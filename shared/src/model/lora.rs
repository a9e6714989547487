//! LoRA (Hu et al. 2022, arXiv:2106.09685): a frozen linear layer `W` learns as `W + alpha/r · B A`.
//!
//! `A` `[rank, in]` starts uniform in ±1/√in and `B` `[out, rank]` at zero, as in PEFT, so that the
//! model starts as it was. Names are PEFT's: layer `fc1` gets `fc1.lora_A.weight` and
//! `fc1.lora_B.weight`. Only adapters learn, on the side or sides of the cut that [`LoraSpec::sides`]
//! names; everything else is frozen, running statistics included. What is stored of such a run is its
//! adapters; [`MergedWeights`] adds them to the weights that they were trained on, and what is served
//! has no adapters left.

use burn::{
    module::{Module, Param, Reparameterization, Reparameterizer},
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

use super::{
    Init, LoadedWeights, ModelError, ParamSpec, Weights,
    matrices::linear_layer,
    params::{ParamNames, param_id},
};
use crate::wire::NamedTensors;

/// Which half of a split model a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Edge,
    Cloud,
}

/// On which side of the cut adapters learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sides {
    Edge,
    Cloud,
    #[default]
    Both,
}

impl Sides {
    pub fn include(self, side: Side) -> bool {
        match self {
            Self::Both => true,
            Self::Edge => side == Side::Edge,
            Self::Cloud => side == Side::Cloud,
        }
    }
}

/// Every linear layer, in [`LoraSpec::targets`].
pub const ALL_LINEAR: &str = "all-linear";

/// Adapters of linear layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSpec {
    pub rank: usize,
    /// Adapters count `alpha / rank` times.
    pub alpha: f64,
    /// Layers by name or by the end of their name (`q_proj`, `attn.c_attn`), or [`ALL_LINEAR`].
    pub targets: Vec<String>,
    pub sides: Sides,
    /// Seed of the first `A`.
    pub seed: u64,
}

impl Default for LoraSpec {
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, targets: vec![ALL_LINEAR.into()], sides: Sides::Both, seed: 1 }
    }
}

impl LoraSpec {
    /// `key: problem` of the first value out of range.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=4096).contains(&self.rank) {
            return Err(format!("rank = {} is out of range (1 to 4096)", self.rank));
        }
        if !(self.alpha > 0.0 && self.alpha <= 1e6) {
            return Err(format!("alpha = {} is out of range (0 < alpha <= 1000000)", self.alpha));
        }
        match self.targets.iter().find(|t| t.is_empty()) {
            None if !self.targets.is_empty() => Ok(()),
            _ => Err(format!("targets must name layers, such as \"q_proj\", or {ALL_LINEAR:?}")),
        }
    }

    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// The layer that an adapter of the parameter of this name and rank belongs to.
    fn target<'a>(&self, name: &'a str, rank: usize) -> Option<&'a str> {
        let layer = linear_layer(name, rank)?;
        let hit = |target: &String| {
            let before = layer.strip_suffix(target.as_str());
            target == ALL_LINEAR || before.is_some_and(|b| b.is_empty() || b.ends_with('.'))
        };
        self.targets.iter().any(hit).then_some(layer)
    }
}

/// Names of a layer's factors `A` and `B`.
pub fn factor_names(layer: &str) -> [String; 2] {
    [format!("{layer}.lora_A.weight"), format!("{layer}.lora_B.weight")]
}

/// The layer that a factor of this name belongs to.
pub fn layer_of(factor: &str) -> Option<&str> {
    [".lora_A.weight", ".lora_B.weight"].iter().find_map(|end| factor.strip_suffix(end))
}

/// Whether a tensor of this name is a factor of an adapter.
pub fn is_factor(name: &str) -> bool {
    layer_of(name).is_some()
}

/// `alpha/r · B A` in the layout of the weight: `[out, in]`, or `[in, out]` if `input_major`.
fn delta(a: Tensor<2>, b: Tensor<2>, scale: f64, input_major: bool) -> Tensor<2> {
    let product = b.matmul(a).mul_scalar(scale);
    if input_major { product.transpose() } else { product }
}

/// The trained part of one layer.
#[derive(Module, Debug)]
pub(super) struct Adapter {
    /// `[rank, in]`
    a: Param<Tensor<2>>,
    /// `[out, rank]`
    b: Param<Tensor<2>>,
    scale: f64,
    input_major: bool,
}

impl Reparameterization for Adapter {
    const NAME: &'static str = "lora";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let delta = delta(self.a.val(), self.b.val(), self.scale, self.input_major);
        let shape = base.dims();
        base + delta.reshape(shape)
    }
}

/// Freezes a stage and gives those of its layers that are targets an adapter; without a spec none.
pub(super) struct Attach<'a> {
    pub names: &'a mut ParamNames,
    pub lora: Option<&'a LoraSpec>,
    pub factors: &'a mut dyn Weights,
    /// See [`super::ModelFamily::is_input_major`].
    pub is_input_major: &'a dyn Fn(&str) -> bool,
    pub device: &'a Device,
    pub outcome: Result<(), ModelError>,
}

impl Attach<'_> {
    fn adapter(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Adapter>, ModelError> {
        let Some((lora, layer)) = self.lora.and_then(|l| Some((l, l.target(name, 2)?))) else {
            return Ok(None);
        };
        let input_major = (self.is_input_major)(name);
        let [output, input] = if input_major { [shape[1], shape[0]] } else { shape };
        let [a, b] = factor_names(layer);
        let a = self.factor(a, [lora.rank, input], Init::FanIn(input))?;
        let b = self.factor(b, [output, lora.rank], Init::Zeros)?;
        Ok(Some(Adapter { a, b, scale: lora.scale(), input_major }))
    }

    fn factor(
        &mut self,
        name: String,
        shape: [usize; 2],
        init: Init,
    ) -> Result<Param<Tensor<2>>, ModelError> {
        let data = self.factors.data(&ParamSpec { name: &name, shape: &shape, init })?;
        let id = param_id(&name);
        self.names.insert(id, name);
        let tensor: Tensor<2> = Tensor::from_data(data, self.device);
        let tensor = if tensor.is_autodiff() { tensor.require_grad() } else { tensor };
        Ok(Param::initialized(id, tensor))
    }
}

impl Reparameterizer for &mut Attach<'_> {
    type Reparam = Adapter;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Adapter>) {
        let param = param.set_require_grad(false);
        let (Some(name), Ok(())) = (self.names.get(&param.id).cloned(), &self.outcome) else {
            return (param, None);
        };
        let dims = param.dims();
        let Ok(shape) = <[usize; 2]>::try_from(&dims[..]) else { return (param, None) };
        match self.adapter(&name, shape) {
            Ok(adapter) => (param, adapter),
            Err(error) => {
                self.outcome = Err(error);
                (param, None)
            }
        }
    }
}

/// Weights with adapters added to them.
pub struct MergedWeights {
    base: Box<dyn Weights>,
    factors: LoadedWeights,
    names: Vec<String>,
    scale: f64,
    is_input_major: Box<dyn Fn(&str) -> bool + Send>,
}

impl MergedWeights {
    /// `factors` are adapters by [`factor_names`]; `is_input_major` says of a weight's name whether it
    /// is stored `[in, out]`.
    pub fn new(
        base: Box<dyn Weights>,
        factors: NamedTensors,
        scale: f64,
        is_input_major: impl Fn(&str) -> bool + Send + 'static,
    ) -> Self {
        let names = factors.iter().map(|(name, _)| name.clone()).collect();
        let (factors, is_input_major) = (LoadedWeights::new(factors), Box::new(is_input_major));
        Self { base, factors, names, scale, is_input_major }
    }
}

impl Weights for MergedWeights {
    fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        let base = self.base.data(param)?;
        let Some([a, b]) = linear_layer(param.name, param.shape.len()).map(factor_names) else {
            return Ok(base);
        };
        if !self.names.contains(&a) && !self.names.contains(&b) {
            return Ok(base);
        }
        let input_major = (self.is_input_major)(param.name);
        let [output, input] = match (input_major, param.shape) {
            (false, &[output, input]) | (true, &[input, output]) => [output, input],
            _ => return Ok(base),
        };
        let rank = self.factors.rank(&a, input)?;
        let device = Device::flex();
        let mut factor = |name: &str, shape: [usize; 2]| {
            let spec = ParamSpec { name, shape: &shape, init: Init::Zeros };
            Ok::<Tensor<2>, ModelError>(Tensor::from_data(self.factors.data(&spec)?, &device))
        };
        let (a, b) = (factor(&a, [rank, input])?, factor(&b, [output, rank])?);
        let base = Tensor::<2>::from_data(base, &device);
        Ok((base + delta(a, b, self.scale, input_major)).into_data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::HostTensor;

    #[test]
    fn both_layouts_learn_the_same() {
        let spec = |name| ParamSpec { name, shape: &[2, 3], init: Init::Zeros };
        let [a, b] = factor_names("fc");
        let (a_values, b_values) = ([1.0, 2.0, 3.0], [10.0, 100.0]);
        let factors = vec![
            (a, HostTensor::from_f32(vec![1, 3], &a_values)),
            (b, HostTensor::from_f32(vec![2, 1], &b_values)),
        ];
        let merged = |shape: &[usize], input_major: bool| {
            let zeros = HostTensor::from_f32(shape.to_vec(), &[0.0; 6]);
            let base = LoadedWeights::new(vec![("fc.weight".into(), zeros)]);
            let mut weights =
                MergedWeights::new(Box::new(base), factors.clone(), 0.5, move |_| input_major);
            let data = weights.data(&ParamSpec { shape, ..spec("fc.weight") }).unwrap();
            data.iter::<f32>().collect::<Vec<f32>>()
        };
        assert_eq!(merged(&[2, 3], false), [5.0, 10.0, 15.0, 50.0, 100.0, 150.0]);
        assert_eq!(merged(&[3, 2], true), [5.0, 50.0, 10.0, 100.0, 15.0, 150.0]);
    }

    #[test]
    fn targets_are_whole_parts_of_a_name() {
        let spec = |target: &str| LoraSpec { targets: vec![target.into()], ..Default::default() };
        let name = "h.0.attn.c_attn.weight";
        for target in [ALL_LINEAR, "c_attn", "attn.c_attn", "h.0.attn.c_attn"] {
            assert_eq!(spec(target).target(name, 2), Some("h.0.attn.c_attn"), "{target}");
        }
        for target in ["attn", "c_proj", "_attn"] {
            assert_eq!(spec(target).target(name, 2), None, "{target}");
        }
        assert_eq!(spec(ALL_LINEAR).target("wte.weight", 2), None);
        assert!(spec("").check().unwrap_err().contains("targets"));
        assert!(LoraSpec { rank: 0, ..Default::default() }.check().unwrap_err().contains("rank"));
    }
}
