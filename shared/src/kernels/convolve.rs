//! Convolution as an operation of burn, with its gradients.

use super::{
    Rectify, Then,
    convolution::{self, Beside, Shape},
    depthwise,
    finish::{Addend, Finish},
    floats, tensor,
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, Scalar, TensorMetadata,
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

/// How a square kernel moves over an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    pub stride: usize,
    pub padding: usize,
}

/// Convolution in FP32. The kernel has to fit into the padded image.
/// `[batch, in, height, width]`, `[out, in, size, size]`, `[out]` → `[batch, out, height', width']`; with weights
/// `[in, 1, size, size]` each channel by itself (depthwise).
pub fn convolve(
    x: Tensor<4>,
    weights: Tensor<4>,
    bias: Option<Tensor<1>>,
    steps: Steps,
) -> Tensor<4> {
    let (x, weights) = (x.into_dispatch(), weights.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::convolve_biased(x, weights, bias.into_dispatch(), steps),
        None => Dispatch::convolve(x, weights, steps),
    })
}

/// `rectify(convolve(x, weights) · scale + shift + addend)`, as [`convolve`]; scale and shift are `[out]`.
pub fn convolve_scaled(
    x: Tensor<4>,
    weights: Tensor<4>,
    [scale, shift]: [Tensor<1>; 2],
    then: Then,
    steps: Steps,
) -> Tensor<4> {
    let (addend, rectify) = then.into_dispatch();
    Tensor::from_dispatch(Dispatch::convolve_scaled(
        x.into_dispatch(),
        weights.into_dispatch(),
        scale.into_dispatch(),
        shift.into_dispatch(),
        addend,
        rectify,
        steps,
    ))
}

/// What burn calls on the device of a tensor.
#[backend_extension(Flex, Autodiff)]
pub trait Convolve: Backend {
    fn convolve(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        steps: Steps,
    ) -> FloatTensor<Self>;

    fn convolve_biased(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        steps: Steps,
    ) -> FloatTensor<Self> {
        let out = bias.shape()[0];
        let bias = Self::float_reshape(bias, Extents::from([1, out, 1, 1]));
        Self::float_add(Self::convolve(x, weights, steps), bias)
    }

    fn convolve_scaled(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        #[extension_type] addend: Addend<Self>,
        rectify: Rectify,
        steps: Steps,
    ) -> FloatTensor<Self> {
        let x = Self::convolve(x, weights, steps);
        let channels = Extents::from([1, scale.shape()[0], 1, 1]);
        let scale = Self::float_reshape(scale, channels.clone());
        let shift = Self::float_reshape(shift, channels);
        let scaled = Self::float_add(Self::float_mul(x, scale), shift);
        let sum = match addend.maps() {
            Some(addend) => Self::float_add(scaled, addend),
            None => scaled,
        };
        match rectify {
            Rectify::Not => sum,
            Rectify::Relu => Self::relu(sum),
            Rectify::Relu6 => Self::float_clamp(sum, Scalar::Float(0.0), Scalar::Float(6.0)),
        }
    }
}

/// Its gradients, on the device itself.
pub trait ConvolveBackward: Backend {
    /// Of the image.
    fn images(
        shape: Extents,
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        steps: Steps,
    ) -> FloatTensor<Self>;

    /// Of the weights.
    fn weights(
        x: FloatTensor<Self>,
        shape: Extents,
        gradient: FloatTensor<Self>,
        steps: Steps,
    ) -> FloatTensor<Self>;
}

impl Convolve for Flex {
    fn convolve(x: FlexTensor, weights: FlexTensor, steps: Steps) -> FlexTensor {
        run(&x, &weights, Beside::Nothing, steps)
    }

    fn convolve_biased(
        x: FlexTensor,
        weights: FlexTensor,
        bias: FlexTensor,
        steps: Steps,
    ) -> FlexTensor {
        run(&x, &weights, Beside::Bias(floats(&bias.to_contiguous())), steps)
    }

    fn convolve_scaled(
        x: FlexTensor,
        weights: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        addend: Addend<Self>,
        rectify: Rectify,
        steps: Steps,
    ) -> FlexTensor {
        let [scale, shift] = [scale, shift].map(|t| t.to_contiguous());
        let addend = addend.maps().map(|addend| addend.to_contiguous());
        let addend = addend.as_ref().map(floats);
        let finish = Finish { scale: floats(&scale), shift: floats(&shift), addend, rectify };
        run(&x, &weights, Beside::Finish(finish), steps)
    }
}

fn run(x: &FlexTensor, weights: &FlexTensor, beside: Beside<'_>, steps: Steps) -> FlexTensor {
    let (kind, shape) = shape(&x.shape(), &weights.shape(), steps);
    let (x, weights) = (x.to_contiguous(), weights.to_contiguous());
    let forward = match kind {
        Kind::Full => convolution::forward,
        Kind::Depthwise => depthwise::forward,
    };
    let out = forward(&shape, floats(&x), floats(&weights), beside);
    tensor(out, [shape.batch, shape.outputs, shape.out_height(), shape.out_width()].into())
}

impl ConvolveBackward for Flex {
    fn images(of: Extents, weights: FlexTensor, gradient: FlexTensor, steps: Steps) -> FlexTensor {
        let (kind, shape) = shape(&of, &weights.shape(), steps);
        let (weights, gradient) = (weights.to_contiguous(), gradient.to_contiguous());
        let backward = match kind {
            Kind::Full => convolution::backward_images,
            Kind::Depthwise => depthwise::backward_images,
        };
        tensor(backward(&shape, floats(&gradient), floats(&weights)), of)
    }

    fn weights(x: FlexTensor, of: Extents, gradient: FlexTensor, steps: Steps) -> FlexTensor {
        let (kind, shape) = shape(&x.shape(), &of, steps);
        let (x, gradient) = (x.to_contiguous(), gradient.to_contiguous());
        let backward = match kind {
            Kind::Full => convolution::backward_weights,
            Kind::Depthwise => depthwise::backward_weights,
        };
        tensor(backward(&shape, floats(&x), floats(&gradient)), of)
    }
}

/// What an output sees.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// All channels.
    Full,
    /// Its own.
    Depthwise,
}

fn shape(x: &Extents, weights: &Extents, Steps { stride, padding }: Steps) -> (Kind, Shape) {
    let [batch, channels, height, width] = x.dims();
    let [outputs, inputs, size, _] = weights.dims();
    let kind = match (inputs == channels, (inputs, outputs) == (1, channels)) {
        (true, _) => Kind::Full,
        (false, true) => Kind::Depthwise,
        (false, false) => panic!("a kernel for another number of channels"),
    };
    (kind, Shape { batch, channels, height, width, outputs, size, stride, padding })
}

impl<B: Convolve + ConvolveBackward, C: CheckpointStrategy> Convolve for Autodiff<B, C> {
    fn convolve(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        steps: Steps,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weights.node()];
        let computed = B::convolve(x.primitive().clone(), weights.primitive().clone(), steps);
        match Gradient.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let kept = (prepared.checkpoint(&x), prepared.checkpoint(&weights), steps);
                prepared.finish(kept, computed)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(computed),
        }
    }
}

/// The backward pass of [`Convolve::convolve`].
#[derive(Debug)]
struct Gradient;

impl<B: ConvolveBackward> Backward<B, 2> for Gradient {
    type State = (NodeId, NodeId, Steps);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let (x, weights, steps) = ops.state;
        let [x_node, weights_node] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        let x: B::FloatTensorPrimitive = checkpointer.retrieve_node_output(x);
        let weights: B::FloatTensorPrimitive = checkpointer.retrieve_node_output(weights);
        let (image, kernel) = (x.shape(), weights.shape());
        if let Some(node) = weights_node {
            gradients.register::<B>(node.id, B::weights(x, kernel, gradient.clone(), steps));
        }
        if let Some(node) = x_node {
            gradients.register::<B>(node.id, B::images(image, weights, gradient, steps));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData, Tolerance, module::conv2d, ops::ConvOptions};
    use proptest::prelude::*;

    use super::*;

    fn numbers(shape: &[usize], seed: f32) -> TensorData {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| ((i as f32 + seed) * 12.9898).sin()).collect::<Vec<_>>();
        TensorData::new(values, shape.to_vec())
    }

    /// Both convolutions of the same: what comes out, and the gradients of image, weights and bias. Without a number of
    /// outputs each channel by itself.
    fn both(
        x: [usize; 4],
        kernel: (Option<usize>, usize),
        steps: Steps,
        biased: bool,
    ) -> [Vec<TensorData>; 2] {
        let device = Device::flex().autodiff();
        let (outputs, size) = kernel;
        let (outputs, inputs, groups) = match outputs {
            Some(outputs) => (outputs, x[1], 1),
            None => (x[1], 1, x[1]),
        };
        let convolved = |ours: bool| {
            let x = Tensor::<4>::from_data(numbers(&x, 1.0), &device).require_grad();
            let weights = numbers(&[outputs, inputs, size, size], 2.0);
            let weights = Tensor::<4>::from_data(weights, &device).require_grad();
            let bias = Tensor::<1>::from_data(numbers(&[outputs], 3.0), &device).require_grad();
            let used = biased.then(|| bias.clone());
            let out = match ours {
                true => convolve(x.clone(), weights.clone(), used, steps),
                false => {
                    let Steps { stride, padding } = steps;
                    let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], groups);
                    conv2d(x.clone(), weights.clone(), used, options)
                }
            };
            let factors = Tensor::<4>::from_data(numbers(&out.dims(), 4.0), &device);
            let gradients = (out.clone() * factors).sum().backward();
            let mut found = vec![
                out.into_data(),
                x.grad(&gradients).unwrap().into_data(),
                weights.grad(&gradients).unwrap().into_data(),
            ];
            found.extend(bias.grad(&gradients).map(Tensor::into_data));
            found
        };
        [convolved(true), convolved(false)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn convolution_and_its_gradients_are_burns(
            batch in 1..4usize,
            channels in 1..6usize,
            height in 1..11usize,
            width in 1..11usize,
            outputs in prop::option::of(1..6usize),
            size in 1..6usize,
            stride in 1..4usize,
            padding in 0..3usize,
            biased: bool,
        ) {
            prop_assume!(height.min(width) + 2 * padding >= size);
            let steps = Steps { stride, padding };
            let [ours, burns] = both([batch, channels, height, width], (outputs, size), steps, biased);
            prop_assert_eq!(ours.len(), burns.len());
            for (ours, burns) in ours.iter().zip(&burns) {
                ours.assert_approx_eq::<f32>(burns, Tolerance::absolute(1e-4));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn in_one_go_is_one_after_the_other(
            batch in 1..4usize,
            height in 1..20usize,
            outputs in prop::option::of(1..6usize),
            size in 1..4usize,
            rectify in prop::sample::select(vec![Rectify::Not, Rectify::Relu, Rectify::Relu6]),
            added: bool,
        ) {
            let steps = Steps { stride: 1, padding: size / 2 };
            let (outputs, inputs) = outputs.map_or((3, 1), |outputs| (outputs, 3));
            let through = |device: &Device| {
                let x = Tensor::<4>::from_data(numbers(&[batch, 3, height, 17], 1.0), device);
                let weights =
                    Tensor::<4>::from_data(numbers(&[outputs, inputs, size, size], 2.0), device);
                let maps = [batch, outputs, height + steps.padding * 2 - size + 1, 17 + steps.padding * 2 - size + 1];
                let addend = Tensor::<4>::from_data(numbers(&maps, 3.0), device);
                let by_channel =
                    [4.0, 5.0].map(|seed| Tensor::<1>::from_data(numbers(&[outputs], seed), device));
                let then = Then { addend: added.then_some(addend), rectify };
                convolve_scaled(x, weights, by_channel, then, steps).into_data()
            };
            // With gradients it is done one operation after the other.
            prop_assert_eq!(through(&Device::flex()), through(&Device::flex().autodiff()));
        }
    }

    #[test]
    fn large_ones_are_cut_into_tiles_and_shared_with_the_same_result() {
        let steps = Steps { stride: 1, padding: 1 };
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let many = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let shape = [2, 64, 40, 41];
        let [ours, burns] = many.install(|| both(shape, (Some(128), 3), steps, true));
        for (ours, burns) in ours.iter().zip(&burns) {
            ours.assert_approx_eq::<f32>(burns, Tolerance::rel_abs(1e-3, 1e-3));
        }
        assert_eq!(alone.install(|| both(shape, (Some(128), 3), steps, true))[0], ours);
    }

    #[test]
    fn small_maps_of_several_images_are_computed_together_with_the_same_result() {
        let steps = Steps { stride: 1, padding: 1 };
        let on = |threads, ours: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| both([7, 24, 7, 6], (Some(96), 3), steps, true))[ours].clone()
        };
        for (ours, burns) in on(2, 0).iter().zip(&on(2, 1)) {
            ours.assert_approx_eq::<f32>(burns, Tolerance::rel_abs(1e-3, 1e-3));
        }
        assert_eq!(on(1, 0), on(2, 0));
        // Each alone.
        assert_eq!(on(8, 0), on(2, 0));
    }

    #[test]
    fn an_image_is_convolved_alike_in_any_batch() {
        let device = Device::flex();
        let values: Vec<f32> = (0..5 * 3 * 20 * 20).map(|i| (i as f32).sin()).collect();
        let x = Tensor::<4>::from_data(TensorData::new(values, [5, 3, 20, 20]), &device);
        let weights = Tensor::<4>::from_data(
            TensorData::new(
                (0..7 * 27).map(|i| (i as f32).cos()).collect::<Vec<_>>(),
                [7, 3, 3, 3],
            ),
            &device,
        );
        let steps = Steps { stride: 2, padding: 1 };
        let whole = convolve(x.clone(), weights.clone(), None, steps);
        for image in 0..5 {
            let own = convolve(x.clone().narrow(0, image, 1), weights.clone(), None, steps);
            assert_eq!(own.into_data(), whole.clone().narrow(0, image, 1).into_data());
        }
    }
}
