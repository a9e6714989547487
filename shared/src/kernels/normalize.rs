//! Batch normalisation in training as an operation of burn, with its gradients.

use burn::{
    backend::{
        Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, NodeGuard, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{Shape as Extents, Tensor},
};

use super::{
    Rectify, Then,
    batch_norm::{self, Done, Layer, Maps},
    finish::Addend,
    floats, tensor,
};

/// What training needs of a batch: the maps, normalised, and each channel's mean and variance, which have no gradient.
pub struct Normalized {
    /// `[batch, channels, height, width]`
    pub output: Tensor<4>,
    /// `[channels]`
    pub mean: Tensor<1>,
    /// `[channels]`, of the batch, not of the population.
    pub variance: Tensor<1>,
}

/// `rectify(weight · (x - mean) / √(variance + ε) + bias + addend)` in FP32, by the moments of the batch itself.
/// `[batch, channels, height, width]`, `[channels]`, `[channels]`
pub fn normalize(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    then: Then,
    epsilon: f32,
) -> Normalized {
    let (addend, rectify) = then.into_dispatch();
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    let (output, mean, variance) = Dispatch::normalize(x, weight, bias, addend, rectify, epsilon);
    let [mean, variance] = [mean, variance].map(Tensor::from_dispatch);
    Normalized { output: Tensor::from_dispatch(output), mean, variance }
}

/// What burn calls on the device of a tensor.
#[backend_extension(Flex, Autodiff)]
pub trait Normalize: Backend {
    /// Output, mean, variance.
    fn normalize(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        #[extension_type] addend: Addend<Self>,
        rectify: Rectify,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Its gradients, on the device itself.
pub trait NormalizeBackward: Backend {
    /// Of x, weight, bias, and of the addend if that is wanted.
    fn gradients(
        pass: Pass<Self>,
        gradient: FloatTensor<Self>,
        of_addend: bool,
    ) -> [Option<FloatTensor<Self>>; 4];
}

/// A forward pass.
pub struct Pass<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    output: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    rectify: Rectify,
    epsilon: f32,
}

impl Normalize for Flex {
    fn normalize(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        addend: Addend<Self>,
        rectify: Rectify,
        epsilon: f32,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [x, weight, bias] = [x, weight, bias].map(|t| t.to_contiguous());
        let addend = addend.maps().map(|addend| addend.to_contiguous());
        let layer = Layer { weight: floats(&weight), bias: floats(&bias), epsilon, rectify };
        let maps = maps(&x.shape());
        let (output, moments) =
            batch_norm::forward(&maps, floats(&x), layer, addend.as_ref().map(floats));
        let [mean, variance] =
            [moments.mean, moments.variance].map(|values| tensor(values, [maps.channels].into()));
        (tensor(output, x.shape()), mean, variance)
    }
}

impl NormalizeBackward for Flex {
    fn gradients(
        pass: Pass<Self>,
        gradient: FlexTensor,
        of_addend: bool,
    ) -> [Option<FlexTensor>; 4] {
        let Pass { x, weight, output, mean, variance, rectify, epsilon } = pass;
        let [x, weight, output, mean, variance, gradient] =
            [x, weight, output, mean, variance, gradient].map(|t| t.to_contiguous());
        // The bias is in none of the gradients.
        let layer = Layer { weight: floats(&weight), bias: &[], epsilon, rectify };
        let done = Done {
            x: floats(&x),
            output: floats(&output),
            mean: floats(&mean),
            variance: floats(&variance),
            gradient: floats(&gradient),
        };
        let found = batch_norm::backward(&maps(&x.shape()), done, layer);
        let addend = of_addend.then(|| match rectify {
            Rectify::Not => gradient.clone(),
            _ => tensor(batch_norm::rectified(done.gradient, done.output, rectify), x.shape()),
        });
        let [weight, bias] =
            [found.weight, found.bias].map(|values| Some(tensor(values, weight.shape())));
        [Some(tensor(found.x, x.shape())), weight, bias, addend]
    }
}

fn maps(shape: &Extents) -> Maps {
    let [batch, channels, height, width] = shape.dims();
    Maps { batch, channels, places: height * width }
}

impl<B: Normalize + NormalizeBackward, C: CheckpointStrategy> Normalize for Autodiff<B, C> {
    fn normalize(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        addend: Addend<Self>,
        rectify: Rectify,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [a, b, c] = [x.node(), weight.node(), bias.node()];
        let added = addend.maps().map(|addend| (addend.node(), addend.primitive().clone()));
        let run = |addend: Option<FloatTensor<B>>| {
            let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.primitive().clone());
            B::normalize(x, weight, bias, addend.into(), rectify, epsilon)
        };
        match added {
            Some((d, addend)) => {
                track::<B, C, 4>([a, b, c, d], &x, &weight, run(Some(addend)), rectify, epsilon)
            }
            None => track::<B, C, 3>([a, b, c], &x, &weight, run(None), rectify, epsilon),
        }
    }
}

/// What the backward pass needs; x and weight are kept by the graph.
type Kept<B> = (NodeId, NodeId, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Rectify, f32);

/// Output, mean, variance.
type Found<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// Makes what was computed from these inputs part of the graph.
fn track<B: Backend, C: CheckpointStrategy, const N: usize>(
    inputs: [NodeGuard; N],
    x: &FloatTensor<Autodiff<B, C>>,
    weight: &FloatTensor<Autodiff<B, C>>,
    (output, mean, variance): Found<B>,
    rectify: Rectify,
    epsilon: f32,
) -> Found<Autodiff<B, C>>
where
    Gradient: Backward<B, N, State = Kept<B>>,
{
    let prepared = Backward::<B, N>::prepare::<C>(Gradient, inputs).compute_bound().stateful();
    let tracked = match prepared {
        OpsKind::Tracked(mut prepared) => {
            let (x, weight) = (prepared.checkpoint(x), prepared.checkpoint(weight));
            let (mean, variance) = (mean.clone(), variance.clone());
            let kept = (x, weight, output.clone(), mean, variance, rectify, epsilon);
            prepared.finish(kept, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    let [mean, variance] = [mean, variance].map(Autodiff::<B, C>::from_inner);
    (tracked, mean, variance)
}

/// The backward pass of [`Normalize::normalize`].
#[derive(Debug)]
struct Gradient;

/// Without an addend.
impl<B: NormalizeBackward> Backward<B, 3> for Gradient {
    type State = Kept<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        register::<B, 3>(ops, false, gradients, checkpointer);
    }
}

/// With one.
impl<B: NormalizeBackward> Backward<B, 4> for Gradient {
    type State = Kept<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let of_addend = ops.parents[3].is_some();
        register::<B, 4>(ops, of_addend, gradients, checkpointer);
    }
}

fn register<B: NormalizeBackward, const N: usize>(
    ops: Ops<Kept<B>, N>,
    of_addend: bool,
    gradients: &mut Gradients,
    checkpointer: &mut Checkpointer,
) {
    let gradient = gradients.consume::<B>(&ops.node);
    let (x, weight, output, mean, variance, rectify, epsilon) = ops.state;
    let x = checkpointer.retrieve_node_output(x);
    let weight = checkpointer.retrieve_node_output(weight);
    let pass = Pass { x, weight, output, mean, variance, rectify, epsilon };
    let found = B::gradients(pass, gradient, of_addend);
    for (node, gradient) in ops.parents.into_iter().zip(found) {
        if let (Some(node), Some(gradient)) = (node, gradient) {
            gradients.register::<B>(node.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData, Tolerance, activation::relu, module::batch_norm_train};
    use proptest::prelude::*;

    use super::*;

    const EPSILON: f64 = 1e-5;

    fn numbers(shape: &[usize], seed: f32) -> TensorData {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| 3.0 * ((i as f32 + seed) * 12.9898).sin() + 0.5);
        TensorData::new(values.collect::<Vec<_>>(), shape.to_vec())
    }

    fn burns(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, then: Then) -> Normalized {
        let normalized = batch_norm_train(x, weight, bias, EPSILON);
        let output = match then.addend {
            Some(addend) => normalized.output + addend,
            None => normalized.output,
        };
        let output = match then.rectify {
            Rectify::Not => output,
            Rectify::Relu => relu(output),
            Rectify::Relu6 => output.clamp(0.0, 6.0),
        };
        Normalized { output, mean: normalized.mean, variance: normalized.variance }
    }

    /// What comes out, and the gradients of x, weight, bias and addend.
    fn all(shape: [usize; 4], rectify: Rectify, added: bool, ours: bool) -> Vec<TensorData> {
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::from_data(numbers(&shape, 1.0), &device).require_grad();
        let weight = Tensor::<1>::from_data(numbers(&shape[1..2], 2.0), &device).require_grad();
        let bias = Tensor::<1>::from_data(numbers(&shape[1..2], 3.0), &device).require_grad();
        let addend = Tensor::<4>::from_data(numbers(&shape, 4.0), &device).require_grad();
        let then = Then { addend: added.then(|| addend.clone()), rectify };
        let (a, b, c) = (x.clone(), weight.clone(), bias.clone());
        let found = match ours {
            true => normalize(a, b, c, then, EPSILON as f32),
            false => burns(a, b, c, then),
        };
        let factors = Tensor::<4>::from_data(numbers(&shape, 5.0), &device);
        let gradients = (found.output.clone() * factors).sum().backward();
        let mut all = vec![
            found.output.into_data(),
            found.mean.into_data(),
            found.variance.into_data(),
            x.grad(&gradients).unwrap().into_data(),
            weight.grad(&gradients).unwrap().into_data(),
            bias.grad(&gradients).unwrap().into_data(),
        ];
        assert_eq!(addend.grad(&gradients).is_some(), added);
        all.extend(addend.grad(&gradients).map(Tensor::into_data));
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn normalisation_and_its_gradients_are_burns(
            batch in 1..5usize,
            channels in 1..5usize,
            height in 2..9usize,
            width in 1..9usize,
            rectify in prop::sample::select(vec![Rectify::Not, Rectify::Relu, Rectify::Relu6]),
            added: bool,
        ) {
            let shape = [batch, channels, height, width];
            let (ours, burns) =
                (all(shape, rectify, added, true), all(shape, rectify, added, false));
            prop_assert_eq!(ours.len(), burns.len());
            for (ours, burns) in ours.iter().zip(&burns) {
                ours.assert_approx_eq::<f32>(burns, Tolerance::rel_abs(1e-3, 2e-3));
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all([4, 6, 20, 21], Rectify::Relu, true, true))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let device = Device::flex();
        let mut values = vec![1.0, 2.0, 3.0, 4.0];
        values[2] = f32::NAN;
        let x = Tensor::<4>::from_data(TensorData::new(values, [1, 1, 2, 2]), &device);
        let ones = Tensor::<1>::from_data([1.0], &device);
        let found = normalize(x, ones.clone(), ones, Rectify::Relu6.into(), EPSILON as f32);
        assert!(found.output.into_data().iter::<f32>().all(f32::is_nan));
    }
}
