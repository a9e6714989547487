//! An input that a model takes, to measure it with.

use crate::{
    model::{Dim, ModelSpec, Port},
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// A batch for `spec`'s first stage, by the names that stages use: floats between -1 and 1, integers within
/// their bounds (1 where 1 is allowed: a mask that hides nothing, a token). Extents that vary are
/// `length`, or their largest if that is less; inputs that may be left out are.
pub fn sample_input(spec: &ModelSpec, batch: usize, length: usize) -> NamedTensors {
    let ports = spec.inputs();
    let single = ports.len() == 1;
    let taken = ports.into_iter().filter(|port| !port.optional);
    taken
        .map(|port| {
            let name = if single { "x".into() } else { port.name.clone() };
            (name, tensor(&port, batch, length))
        })
        .collect()
}

fn tensor(port: &Port, batch: usize, length: usize) -> HostTensor {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(n) => n,
        Dim::UpTo(most) => most.min(length.max(1)),
    };
    let shape: Vec<usize> = std::iter::once(batch).chain(port.shape.iter().map(extent)).collect();
    let count = shape.iter().product::<usize>();
    match port.dtype {
        DType::I64 => {
            let most = port.below.map_or(1, |below| (below - 1).min(1));
            HostTensor::from_i64(shape, &vec![most; count])
        }
        _ => {
            // Uneven, so that codecs and activations have something to do; a few lines of Weyl sequence.
            let value = |i: usize| ((i as f64 * 0.618_033_988_749).fract() * 2.0 - 1.0) as f32;
            HostTensor::from_f32(shape, &(0..count).map(value).collect::<Vec<f32>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SeededWeights, Segment};

    #[test]
    fn every_small_model_takes_its_sample() {
        for name in ["linear-regression", "mlp", "lenet", "lstm", "gru"] {
            let spec = ModelSpec::builtin(name).unwrap();
            let whole = 0..spec.stage_count();
            let model = Segment::build(&spec, whole, &mut SeededWeights(1), false).unwrap();
            let output = model.infer(&sample_input(&spec, 2, 7)).unwrap();
            assert_eq!(output[0].1.shape()[0], 2, "{name}");
        }
    }
}
