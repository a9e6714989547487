//! Filter pruning (Li et al. 2017, arXiv:1608.08710): convolutions lose whole filters, and the layers
//! behind them the inputs that these gave, so that the model is a smaller one of the same family.
//!
//! Of each convolution the filters with the smallest sums of absolute weights go. The result is an
//! ordinary spec with ordinary weights: it is cut, trained and served like any other.

use std::collections::HashMap;

use super::{ModelError, ModelSpec};
use crate::{tensor::HostTensor, wire::NamedTensors};

/// The convolutions of a chain model that may be narrowed, and how the narrower model is named.
pub struct FilterChain {
    pub layers: Vec<FilterLayer>,
    /// The spec with these numbers of filters, one for each of `layers`.
    pub narrowed: Narrow,
}

/// A spec from numbers of filters.
pub type Narrow = Box<dyn Fn(&[usize]) -> ModelSpec>;

/// One convolution, `<layer>.weight` `[out, in, kh, kw]`, with or without a bias.
pub struct FilterLayer {
    pub layer: String,
    pub consumers: Vec<Consumer>,
}

/// A layer that reads a convolution's output.
pub struct Consumer {
    pub layer: String,
    /// Inputs side by side that one filter gives: 1 for a convolution, the pixels of a map for a linear
    /// layer behind a flattening.
    pub inputs_per_filter: usize,
}

impl FilterChain {
    /// Convolutions each of which feeds the next one, and the last one the linear layer `dense`, which
    /// sees `pixels` of each map.
    pub fn plain(
        layers: &[String],
        dense: &str,
        pixels: usize,
        narrowed: impl Fn(&[usize]) -> ModelSpec + 'static,
    ) -> Self {
        let consumer = |i: usize| match layers.get(i + 1) {
            Some(next) => Consumer { layer: next.clone(), inputs_per_filter: 1 },
            None => Consumer { layer: dense.into(), inputs_per_filter: pixels },
        };
        let layer = |(i, layer): (usize, &String)| FilterLayer {
            layer: layer.clone(),
            consumers: vec![consumer(i)],
        };
        Self {
            layers: layers.iter().enumerate().map(layer).collect(),
            narrowed: Box::new(narrowed),
        }
    }
}

/// The model without the weakest `amount` (0 to 1) of the filters of each convolution; at least one
/// filter of each stays.
pub fn prune_filters(
    spec: &ModelSpec,
    weights: &NamedTensors,
    amount: f64,
) -> Result<(ModelSpec, NamedTensors), ModelError> {
    let chain = spec.filter_chain().filter(|c| !c.layers.is_empty());
    let chain = chain.ok_or_else(|| ModelError::Prune {
        model: spec.family_name(),
        problem: "filters are pruned in plain chains of convolutions only".into(),
    })?;
    let mut tensors: HashMap<String, HostTensor> = weights.iter().cloned().collect();
    let mut widths = Vec::new();
    for FilterLayer { layer, consumers } in &chain.layers {
        let name = format!("{layer}.weight");
        let kept = strongest(find(&tensors, &name)?, &name, amount)?;
        select(&mut tensors, &name, 0, &kept)?;
        let bias = format!("{layer}.bias");
        if tensors.contains_key(&bias) {
            select(&mut tensors, &bias, 0, &kept)?;
        }
        for Consumer { layer, inputs_per_filter } in consumers {
            let width = *inputs_per_filter;
            let inputs: Vec<usize> = kept.iter().flat_map(|f| f * width..(f + 1) * width).collect();
            select(&mut tensors, &format!("{layer}.weight"), 1, &inputs)?;
        }
        widths.push(kept.len());
    }
    let ordered = weights.iter().map(|(name, _)| (name.clone(), tensors[name].clone())).collect();
    Ok(((chain.narrowed)(&widths), ordered))
}

fn find<'a>(
    tensors: &'a HashMap<String, HostTensor>,
    name: &str,
) -> Result<&'a HostTensor, ModelError> {
    tensors.get(name).ok_or_else(|| weight_error(name, "is missing".into()))
}

/// Indices of the filters that stay, in their order.
fn strongest(weight: &HostTensor, name: &str, amount: f64) -> Result<Vec<usize>, ModelError> {
    let values = floats(weight, name)?;
    let filters = weight.shape().first().copied().unwrap_or(0);
    if filters == 0 {
        return Err(weight_error(name, "has no filters".into()));
    }
    let norm = |filter: &[f32]| filter.iter().map(|w| f64::from(w.abs())).sum::<f64>();
    let norms: Vec<f64> = values.chunks_exact(values.len() / filters).map(norm).collect();
    let mut order: Vec<usize> = (0..filters).collect();
    order.sort_by(|a, b| norms[*b].total_cmp(&norms[*a]).then(a.cmp(b)));
    let gone = (filters as f64 * amount).round() as usize;
    order.truncate(filters.saturating_sub(gone).max(1));
    order.sort_unstable();
    Ok(order)
}

/// Keeps these indices of one axis of a tensor.
fn select(
    tensors: &mut HashMap<String, HostTensor>,
    name: &str,
    axis: usize,
    kept: &[usize],
) -> Result<(), ModelError> {
    let tensor = find(tensors, name)?;
    let mut shape = tensor.shape().to_vec();
    let highest = kept.last().copied().unwrap_or(0);
    let extent = shape.get(axis).copied().unwrap_or(0);
    if highest >= extent {
        return Err(weight_error(
            name,
            format!("shape {shape:?} does not fit the layer before it"),
        ));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let values = floats(tensor, name)?;
    let blocks = values.chunks_exact((extent * inner).max(1));
    let rows = blocks.flat_map(|b| kept.iter().flat_map(move |&k| &b[k * inner..(k + 1) * inner]));
    let rows: Vec<f32> = rows.copied().collect();
    shape[axis] = kept.len();
    tensors.insert(name.into(), HostTensor::from_f32(shape, &rows));
    Ok(())
}

fn floats(tensor: &HostTensor, name: &str) -> Result<Vec<f32>, ModelError> {
    tensor.to_f32().map_err(|e| weight_error(name, e.to_string()))
}

fn weight_error(name: &str, problem: String) -> ModelError {
    ModelError::Weight { name: name.into(), problem }
}
