//! Max pooling as an operation of burn, with its gradient.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{Shape as Extents, Tensor},
};

use super::{Steps, convolution::Shape, floats, pooling, tensor};

/// The largest value of each window of `size`², in FP32; there is at most half a window of padding, which is never the
/// largest. What is left over at the end is dropped. `[batch, channels, height, width]` → `[batch, channels, height', width']`
pub fn max_pool(x: Tensor<4>, size: usize, steps: Steps) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::max_pool(x.into_dispatch(), size, steps))
}

/// What burn calls on the device of a tensor.
#[backend_extension(Flex, Autodiff)]
pub trait MaxPool: Backend {
    fn max_pool(x: FloatTensor<Self>, size: usize, steps: Steps) -> FloatTensor<Self>;
}

/// Its gradient, on the device itself.
pub trait MaxPoolBackward: Backend {
    fn gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        size: usize,
        steps: Steps,
    ) -> FloatTensor<Self>;
}

impl MaxPool for Flex {
    fn max_pool(x: FlexTensor, size: usize, steps: Steps) -> FlexTensor {
        let shape = shape(&x.shape(), size, steps);
        let out = pooling::forward(&shape, floats(&x.to_contiguous()));
        tensor(out, [shape.batch, shape.channels, shape.out_height(), shape.out_width()].into())
    }
}

impl MaxPoolBackward for Flex {
    fn gradient(x: FlexTensor, gradient: FlexTensor, size: usize, steps: Steps) -> FlexTensor {
        let shape = shape(&x.shape(), size, steps);
        let (x, gradient) = (x.to_contiguous(), gradient.to_contiguous());
        tensor(pooling::backward(&shape, floats(&x), floats(&gradient)), x.shape())
    }
}

fn shape(x: &Extents, size: usize, Steps { stride, padding }: Steps) -> Shape {
    let [batch, channels, height, width] = x.dims();
    Shape { batch, channels, height, width, outputs: channels, size, stride, padding }
}

impl<B: MaxPool + MaxPoolBackward, C: CheckpointStrategy> MaxPool for Autodiff<B, C> {
    fn max_pool(x: FloatTensor<Self>, size: usize, steps: Steps) -> FloatTensor<Self> {
        let computed = B::max_pool(x.primitive().clone(), size, steps);
        match Gradient.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let kept = (prepared.checkpoint(&x), size, steps);
                prepared.finish(kept, computed)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(computed),
        }
    }
}

/// The backward pass of [`MaxPool::max_pool`].
#[derive(Debug)]
struct Gradient;

impl<B: MaxPoolBackward> Backward<B, 1> for Gradient {
    type State = (NodeId, usize, Steps);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let (x, size, steps) = ops.state;
        let [node] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        let x: B::FloatTensorPrimitive = checkpointer.retrieve_node_output(x);
        if let Some(node) = node {
            gradients.register::<B>(node.id, B::gradient(x, gradient, size, steps));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData, module::max_pool2d, ops::MaxPoolOptions};
    use proptest::prelude::*;

    use super::*;

    /// What comes out, and the gradient of the images.
    fn pooled(
        values: &[f32],
        shape: [usize; 4],
        size: usize,
        steps: Steps,
        ours: bool,
    ) -> [TensorData; 2] {
        let device = Device::flex().autodiff();
        let data = TensorData::new(values.to_vec(), shape);
        let x = Tensor::<4>::from_data(data, &device).require_grad();
        let Steps { stride, padding } = steps;
        let out = match ours {
            true => max_pool(x.clone(), size, steps),
            false => {
                let options = MaxPoolOptions {
                    kernel_size: [size; 2],
                    stride: [stride; 2],
                    padding: [(padding, padding); 2],
                    dilation: [1, 1],
                    ceil_mode: false,
                };
                max_pool2d(x.clone(), options)
            }
        };
        let count = out.dims().iter().product::<usize>();
        let factors = (0..count).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
        let factors = Tensor::<4>::from_data(TensorData::new(factors, out.dims()), &device);
        let gradients = (out.clone() * factors).sum().backward();
        [out.into_data(), x.grad(&gradients).unwrap().into_data()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        /// With equal values among them.
        #[test]
        fn pooling_and_its_gradient_are_burns(
            batch in 1..3usize,
            channels in 1..4usize,
            height in 1..12usize,
            width in 1..12usize,
            size in 1..5usize,
            stride in 1..4usize,
            padded: bool,
            values in prop::collection::vec(-9..9i8, 2 * 3 * 11 * 11),
        ) {
            let steps = Steps { stride, padding: if padded { size / 2 } else { 0 } };
            prop_assume!(height.min(width) + 2 * steps.padding >= size);
            let count = batch * channels * height * width;
            let values: Vec<f32> = values[..count].iter().map(|v| f32::from(*v)).collect();
            let shape = [batch, channels, height, width];
            let [ours, gradient] = pooled(&values, shape, size, steps, true);
            let [burns, reference] = pooled(&values, shape, size, steps, false);
            prop_assert_eq!(ours, burns);
            gradient.assert_approx_eq::<f32>(&reference, burn::tensor::Tolerance::absolute(1e-5));
        }
    }

    #[test]
    fn what_is_not_a_number_is_the_largest() {
        let values = [1.0, f32::NAN, 9.0, 2.0];
        let steps = Steps { stride: 2, padding: 0 };
        let [out, gradient] = pooled(&values, [1, 1, 2, 2], 2, steps, true);
        assert!(out.iter::<f32>().all(f32::is_nan));
        // Only the last two were looked at after it: a number is not larger than NaN.
        assert!(gradient.iter::<f32>().enumerate().all(|(i, g)| (i == 1) || g == 0.0));
    }
}
