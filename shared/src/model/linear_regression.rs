//! Linear regression, the smallest case of gradient descent: `y = W (x − mean) / std + b`, fitted by
//! the mean squared error.
//!
//! `scale → linear`. Scaling keeps the features at one magnitude, without which one learning rate
//! does not fit them all. It has no parameters to learn: mean and deviation are those of the training
//! data, stand in the spec, and so are the same on both sides of a cut.

use burn::{module::Module, tensor::Tensor};

use super::{
    Activation, Block, ModelError, ModelFamily, Params, Pass, Port, StagePlan, Value,
    blocks::{Dense, cut},
    spec::sizes_in_range,
};

/// Sizes of a linear regression, and how its features are scaled.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearRegressionSpec {
    /// Numbers in a sample.
    pub features: usize,
    /// Numbers to predict.
    pub outputs: usize,
    /// Mean of each feature over the training data; none: 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Standard deviation of each feature over the training data; none: 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
}

impl ModelFamily for LinearRegressionSpec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::float("input", &[self.features])]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::float("prediction", &[self.outputs])]
    }

    fn check(&self) -> Result<(), String> {
        sizes_in_range([self.features, self.outputs])?;
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            let (found, needed) = (values.len(), self.features);
            if found != 0 && found != needed {
                return Err(format!("{key} has {found} values for {needed} features"));
            }
        }
        if let Some(i) = self.mean.iter().position(|m| !m.is_finite()) {
            return Err(format!("mean of feature {i} is not a number"));
        }
        match self.std.iter().position(|s| !s.is_normal() || *s < 0.0) {
            Some(i) => Err(format!(
                "std of feature {i} is {}: it must be above 0 (a feature that is constant says \
                 nothing: leave it out, or give it std 1)",
                self.std[i]
            )),
            None => Ok(()),
        }
    }

    fn stages(&self) -> Vec<StagePlan> {
        let (features, outputs) = (self.features, self.outputs);
        let or = |values: &[f32], default| match values {
            [] => vec![default; features],
            given => given.to_vec(),
        };
        let (mean, std) = (or(&self.mean, 0.0), or(&self.std, 1.0));
        let scale = move |params: &mut Params<'_>| Ok(Scale::new(&mean, &std, params));
        let linear =
            move |params: &mut Params<'_>| Dense::new("linear", [features, outputs], false, params);
        vec![
            StagePlan::new("scale", cut(&[features]), 0, scale),
            StagePlan::new("linear", cut(&[outputs]), 2 * features * outputs, linear),
        ]
    }
}

/// `(x − mean) / std`. `[batch, features]` → `[batch, features]`
#[derive(Module, Debug)]
struct Scale {
    /// `[1, features]`, as is `std`.
    mean: Tensor<2>,
    std: Tensor<2>,
}

impl Scale {
    fn new(mean: &[f32], std: &[f32], params: &Params<'_>) -> Self {
        let row = |values: &[f32]| Tensor::<1>::from_floats(values, params.device()).unsqueeze();
        Self { mean: row(mean), std: row(std) }
    }
}

impl Block for Scale {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let [_, features] = self.mean.dims();
        match input.into_single(pass.stage)? {
            Value::R2(x) if x.dims()[1] == features => {
                Ok(Value::R2((x - self.mean.clone()) / self.std.clone()).into())
            }
            other => Err(ModelError::Input {
                stage: pass.stage.into(),
                expected: format!("FP32 [batch, {features}]"),
                found: format!("shape {:?}", other.dims()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_that_does_not_fit_is_refused() {
        let spec = |mean: &[f32], std: &[f32]| {
            LinearRegressionSpec { features: 2, outputs: 1, mean: mean.into(), std: std.into() }
                .check()
        };
        assert_eq!(spec(&[], &[]), Ok(()));
        assert_eq!(spec(&[1.0, -2.0], &[0.5, 3.0]), Ok(()));
        assert_eq!(spec(&[1.0], &[]).unwrap_err(), "mean has 1 values for 2 features");
        assert_eq!(spec(&[], &[1.0; 3]).unwrap_err(), "std has 3 values for 2 features");
        assert!(spec(&[0.0, f32::NAN], &[]).unwrap_err().contains("mean of feature 1"));
        for bad in [0.0, -1.0, f32::INFINITY, f32::NAN] {
            assert!(spec(&[], &[1.0, bad]).unwrap_err().contains("std of feature 1"), "{bad}");
        }
    }
}
