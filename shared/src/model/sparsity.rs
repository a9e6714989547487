//! Magnitude pruning (Han et al. 2015, arXiv:1506.02626): the smallest weights are zero, and stay it.
//!
//! Of each weight matrix the share that the configuration asks for, by absolute value, is masked, as
//! `torch.nn.utils.prune.l1_unstructured` does; the mask is applied again after every step, so that
//! fine-tuning cannot bring a pruned weight back. A mask is a function of the weights: zeros are the
//! smallest, so a run that is restored finds the mask that it had.

use std::collections::HashMap;

use burn::{
    module::{ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData},
};

use super::{matrices::is_weight_matrix, params::ParamNames};
use crate::{tensor::HostTensor, wire::NamedTensors};

/// One for each weight that is kept, zero for the others.
pub(super) type Masks = HashMap<ParamId, Tensor<1>>;

/// Indices of the `round(amount · n)` smallest values, the first of equals first.
fn smallest(values: &[f32], amount: f64) -> Vec<usize> {
    let count = (values.len() as f64 * amount).round() as usize;
    let mut order: Vec<usize> = (0..values.len()).collect();
    if count > 0 && count < values.len() {
        let key = |i: &usize| (values[*i].abs(), *i);
        order.select_nth_unstable_by(count - 1, |a, b| {
            let (a, b) = (key(a), key(b));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
        });
    }
    order.truncate(count);
    order
}

/// Sets the smallest weights of each matrix to zero.
pub fn prune_smallest(weights: NamedTensors, amount: f64) -> NamedTensors {
    let prune = |(name, tensor): (String, HostTensor)| {
        let values = tensor.to_f32().ok().filter(|_| is_weight_matrix(&name, tensor.shape().len()));
        let Some(mut values) = values else { return (name, tensor) };
        smallest(&values, amount).into_iter().for_each(|i| values[i] = 0.0);
        (name, HostTensor::from_f32(tensor.shape().to_vec(), &values))
    };
    weights.into_iter().map(prune).collect()
}

/// Makes the masks of a stage.
pub(super) struct MakeMasks<'a> {
    pub names: &'a ParamNames,
    pub amount: f64,
    pub masks: Masks,
}

impl ModuleVisitor for MakeMasks<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.names.get(&param.id).is_some_and(|name| is_weight_matrix(name, D)) {
            return;
        }
        let data = param.val().into_data();
        let values: Vec<f32> = data.iter::<f32>().collect();
        let mut mask = vec![1.0f32; values.len()];
        smallest(&values, self.amount).into_iter().for_each(|i| mask[i] = 0.0);
        let count = mask.len();
        let device = param.val().without_autodiff().device();
        self.masks.insert(param.id, Tensor::from_data(TensorData::new(mask, [count]), &device));
    }
}

/// Sets masked weights to zero.
pub(super) struct ApplyMasks<'a>(pub &'a Masks);

impl ModuleMapper for ApplyMasks<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(mask) = self.0.get(&param.id).cloned() else { return param };
        let shape = param.dims();
        param.map(|weight| {
            let (autodiff, trained) = (weight.is_autodiff(), weight.is_require_grad());
            let weight = weight.without_autodiff() * mask.reshape(shape);
            let weight = if autodiff { Tensor::from_inner(weight) } else { weight };
            if trained { weight.require_grad() } else { weight }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_half_is_zero_whatever_ties() {
        let tensor = HostTensor::from_f32(vec![2, 3], &[0.5, -0.1, 0.1, -2.0, 0.1, 3.0]);
        let bias = HostTensor::from_f32(vec![2], &[0.01, 0.02]);
        let weights = vec![("fc1.weight".into(), tensor), ("fc1.bias".into(), bias.clone())];
        let pruned = prune_smallest(weights, 0.5);
        assert_eq!(pruned[0].1.to_f32().unwrap(), [0.5, 0.0, 0.0, -2.0, 0.0, 3.0]);
        assert_eq!(pruned[1].1, bias);
        assert_eq!(prune_smallest(pruned.clone(), 0.5), pruned, "zeros are the smallest");
        assert!(smallest(&[1.0, 2.0], 0.0).is_empty());
        assert_eq!(smallest(&[1.0, 2.0], 1.0).len(), 2);
    }
}
