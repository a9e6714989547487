//! The Gaussian error linear unit (Hendrycks and Gimpel, 2016): x Φ(x), exactly and in the form of GPT-2.
//!
//! One pass over memory. The functions below are of single numbers, without branches, so that the compiler makes them
//! work on as many numbers at once as the processor has room for, which is found at run time.

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
    tensor::Tensor,
};
use pulp::Arch;
use rayon::prelude::*;

use super::{floats, tensor};

/// Values that a thread takes at a time.
const CHUNK: usize = 16 << 10;

/// How Φ is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// ½ (1 + erf(x / √2))
    Erf,
    /// ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))
    Tanh,
}

/// Any shape, in and out; FP32.
pub fn gelu<const D: usize>(x: Tensor<D>, form: Form) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::gelu_of(x.into_dispatch(), form))
}

/// What burn calls on the device of a tensor.
#[backend_extension(Flex, Autodiff)]
pub trait Gelu: Backend {
    fn gelu_of(x: FloatTensor<Self>, form: Form) -> FloatTensor<Self>;
}

/// Its derivative, on the device itself.
pub trait GeluBackward: Backend {
    fn gelu_slope(x: FloatTensor<Self>, form: Form) -> FloatTensor<Self>;
}

impl Gelu for Flex {
    fn gelu_of(x: FlexTensor, form: Form) -> FlexTensor {
        match form {
            Form::Erf => each(&x, by_erf),
            Form::Tanh => each(&x, by_tanh),
        }
    }
}

impl GeluBackward for Flex {
    fn gelu_slope(x: FlexTensor, form: Form) -> FlexTensor {
        match form {
            Form::Erf => each(&x, slope_by_erf),
            Form::Tanh => each(&x, slope_by_tanh),
        }
    }
}

fn each(x: &FlexTensor, function: impl Fn(f32) -> f32 + Copy + Sync) -> FlexTensor {
    let x = x.to_contiguous();
    let values = floats(&x);
    let mut out = vec![0.0; values.len()];
    let arch = Arch::new();
    out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(out, values)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (out, x) in out.iter_mut().zip(values) {
                    *out = function(*x);
                }
            },
        );
    });
    tensor(out, x.shape())
}

#[inline(always)]
fn by_tanh(x: f32) -> f32 {
    x * share(x)
}

#[inline(always)]
fn slope_by_tanh(x: f32) -> f32 {
    let share = share(x);
    let inner = 2.0 * TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * x * x);
    share + x * share * (1.0 - share) * inner
}

const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBE: f32 = 0.044_715;

/// ½ (1 + tanh u) = 1 / (1 + e^(-2u))
#[inline(always)]
fn share(x: f32) -> f32 {
    let u = TANH_SCALE * (x + TANH_CUBE * x * x * x);
    1.0 / (1.0 + exp(-2.0 * u))
}

#[inline(always)]
fn by_erf(x: f32) -> f32 {
    x * below(x)
}

/// Φ(x), the share of a normal distribution that is below x. Where it is less than the error of [`erf`], it is 0.
#[inline(always)]
fn below(x: f32) -> f32 {
    const NOTHING: f32 = -5.6;
    let share = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    if x < NOTHING { 0.0 } else { share }
}

#[inline(always)]
fn slope_by_erf(x: f32) -> f32 {
    const DENSITY: f32 = 0.398_942_3;
    below(x) + x * DENSITY * exp(-0.5 * x * x)
}

/// e^x within two units in the last place: 2^n e^r with |r| ≤ ½ ln 2, and a polynomial for e^r (Cephes).
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it leaves the nearest whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2[0] - n * LN2[1];
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    value * f32::from_bits(power)
}

/// The error function within some units in the last place: a rational function of x up to 4, beyond which it is ±1.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let y = x * x;
    let p = -2.726_142_3e-10;
    let p = p * y + 2.770_681_4e-8;
    let p = p * y - 2.101_024e-6;
    let p = p * y - 5.692_506_5e-5;
    let p = p * y - 7.349_906_5e-4;
    let p = p * y - 2.954_6e-3;
    let p = p * y - 1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * y - 2.133_740_6e-4;
    let q = q * y - 1.682_827e-3;
    let q = q * y - 7.373_329_2e-3;
    let q = q * y - 1.426_473_9e-2;
    x * p / q
}

impl<B: Gelu + GeluBackward, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn gelu_of(x: FloatTensor<Self>, form: Form) -> FloatTensor<Self> {
        let computed = B::gelu_of(x.primitive().clone(), form);
        match Slope.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let kept = (prepared.checkpoint(&x), form);
                prepared.finish(kept, computed)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(computed),
        }
    }
}

/// The backward pass of [`Gelu::gelu_of`].
#[derive(Debug)]
struct Slope;

impl<B: GeluBackward> Backward<B, 1> for Slope {
    type State = (NodeId, Form);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let (x, form) = ops.state;
        let [node] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        let x: B::FloatTensorPrimitive = checkpointer.retrieve_node_output(x);
        if let Some(node) = node {
            let slope = B::gelu_slope(x, form);
            gradients.register::<B>(node.id, B::float_mul(gradient, slope));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// From -12 to 12, and further out.
    fn numbers() -> Vec<f32> {
        (-12_000..=12_000).map(|i| i as f32 * 1e-3).chain([-90.0, 90.0, -1e4, 1e4, 0.0]).collect()
    }

    /// Exactly, and the derivative.
    fn exact(x: f64, form: Form) -> [f64; 2] {
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        match form {
            Form::Erf => {
                let below = 0.5 * (1.0 + libm::erf(x / 2f64.sqrt()));
                [x * below, below + x * density]
            }
            Form::Tanh => {
                let scale = (2.0 / std::f64::consts::PI).sqrt();
                let tanh = (scale * (x + 0.044_715 * x * x * x)).tanh();
                let inner = scale * (1.0 + 3.0 * 0.044_715 * x * x);
                let slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner;
                [0.5 * x * (1.0 + tanh), slope]
            }
        }
    }

    #[test]
    fn values_and_slopes_are_exact_to_single_precision() {
        let device = Device::flex().autodiff();
        for form in [Form::Erf, Form::Tanh] {
            let x = Tensor::<1>::from_floats(numbers().as_slice(), &device).require_grad();
            let out = gelu(x.clone(), form);
            let gradients = out.clone().sum().backward();
            let out = out.into_data().try_to_vec::<f32>().unwrap();
            let slopes = x.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap();
            for ((x, out), slope) in numbers().into_iter().zip(out).zip(slopes) {
                let [value, exact_slope] = exact(x.into(), form);
                let near = |found: f32, exact: f64| {
                    (f64::from(found) - exact).abs() <= 2e-6 * exact.abs().max(1.0)
                };
                assert!(near(out, value), "{form:?}({x}) is {out}, not {value}");
                assert!(near(slope, exact_slope), "{form:?}'({x}) is {slope}, not {exact_slope}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let x = Tensor::<1>::from_floats([f32::NAN, f32::INFINITY], &Device::flex());
        for form in [Form::Erf, Form::Tanh] {
            let out = gelu(x.clone(), form).into_data().try_to_vec::<f32>().unwrap();
            assert!(out[0].is_nan() && out[1] == f32::INFINITY, "{out:?}");
        }
    }
}
