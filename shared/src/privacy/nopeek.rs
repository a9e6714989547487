//! NoPeek: a head that learns to send activations which depend little on its input.
//!
//! The penalty is the sample distance correlation (Székely, Rizzo and Bakirov, "Measuring and testing
//! dependence by correlation of distances", Annals of Statistics 2007) between inputs and activations
//! of a batch, as Vepakomma et al. ("NoPeek: Information leakage reduction to share activations in
//! distributed deep learning", ICDMW 2020) add it to the loss with a weight α. It is 1 where one is a
//! rotation and a scaling of the other, and 0 in the limit where both are independent. It makes a
//! rebuilding worse, but is no guarantee.

use burn::tensor::{Device, Tensor};

use crate::model::Activation;

/// Keeps square roots away from 0, where their derivative is infinite.
const TINY: f32 = 1e-12;

/// Distance correlation of the batch, 0 to 1, a scalar `[1]` that both can be differentiated by.
///
/// All float tensors of a sample count together; integers do not. It is of the batch as a whole: the
/// mean over micro-batches is another number. 0 where there is nothing to compare: less than two
/// samples, no floats, or all samples alike.
pub fn penalty(input: &Activation, smashed: &Activation) -> Tensor<1> {
    match (samples(input), samples(smashed)) {
        (Some(x), Some(y)) if x.dims()[0] > 1 => {
            let (x, y) = (centred_distances(x), centred_distances(y));
            let covariance = (x.clone() * y.clone()).mean();
            let variances = x.square().mean() * y.square().mean();
            // A root of the product, not a product of roots: one TINY for both.
            let correlation = covariance / variances.clamp_min(TINY * TINY).sqrt();
            correlation.clamp_min(TINY).sqrt()
        }
        // Of the activation if it has floats: what is learned has a gradient.
        (_, Some(rows)) | (Some(rows), None) => rows.sum().mul_scalar(0.0),
        (None, None) => Tensor::zeros([1], &Device::flex()),
    }
}

/// The batch as `[samples, values]`.
fn samples(activation: &Activation) -> Option<Tensor<2>> {
    let rows: Vec<_> = activation.values().filter_map(|value| value.rows()).collect();
    (!rows.is_empty()).then(|| Tensor::cat(rows, 1))
}

/// Euclidean distances between the rows, minus the means of row and column, plus the mean of all.
fn centred_distances(rows: Tensor<2>) -> Tensor<2> {
    let distances = distances(rows);
    let row = distances.clone().mean_dim(1);
    let column = distances.clone().mean_dim(0);
    let mean = row.clone().mean_dim(0);
    distances - row - column + mean
}

/// `|a - b|` of each pair by `|a|² + |b|² - 2ab`, around the mean of the rows, where that cancels
/// least; a batch of large activations would not fit as differences.
fn distances(rows: Tensor<2>) -> Tensor<2> {
    let [count, _] = rows.dims();
    let rows = rows.clone() - rows.mean_dim(0);
    let squares = rows.clone().square().sum_dim(1);
    let products = rows.clone().matmul(rows.transpose());
    let squared = squares.clone() + squares.transpose() - products.mul_scalar(2.0);
    // Constants: a sample is at distance 0 of itself whatever rounding says, and so are equal ones.
    let others = Tensor::<2>::eye(count, &squared.device()).lower_scalar(0.5).float();
    let apart = squared.clone().greater_scalar(TINY).float() * others;
    squared.clamp_min(TINY).sqrt() * apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Value, tensor::HostTensor};

    fn batch(values: &[[f32; 2]]) -> Activation {
        let flat: Vec<f32> = values.concat();
        let tensor = HostTensor::from_f32(vec![values.len(), 2], &flat);
        Activation::single(Value::from_host(&tensor, &Device::flex().autodiff()).unwrap())
    }

    fn correlation(x: &[[f32; 2]], y: &[[f32; 2]]) -> f32 {
        penalty(&batch(x), &batch(y)).into_scalar()
    }

    const X: [[f32; 2]; 4] = [[0.0, 0.0], [1.0, 0.0], [0.5, 2.0], [3.0, -1.0]];

    #[test]
    fn a_rotation_and_scaling_is_fully_dependent() {
        let turned = X.map(|[a, b]| [-3.0 * b + 7.0, 3.0 * a - 2.0]);
        assert!((correlation(&X, &turned) - 1.0).abs() < 1e-5);
        let bent = X.map(|[a, b]| [a * a, b - a]);
        assert!((0.3..0.99).contains(&correlation(&X, &bent)));
    }

    #[test]
    fn the_four_corners_are_independent() {
        // Every first coordinate with every second one.
        let corners = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]];
        let (x, y) = (corners.map(|[a, _]| [a, 0.0]), corners.map(|[_, b]| [0.0, b]));
        assert!(correlation(&x, &y) < 1e-3);
    }

    #[test]
    fn what_cannot_be_compared_is_0_and_has_a_finite_gradient() {
        for (x, y) in [(&X[..], &[[2.0, 3.0]; 4][..]), (&[[0.5, 0.5]; 4], &X), (&X[..1], &X[..1])] {
            let smashed = batch(y).require_grad();
            let value = penalty(&batch(x), &smashed);
            let grads = value.backward();
            assert!(value.into_scalar::<f32>() < 1e-5);
            let gradient = smashed.grads(&grads).into_host();
            assert!(gradient[0].1.to_f32().unwrap().iter().all(|g| g.is_finite()));
        }
    }
}
