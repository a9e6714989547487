//! A learned bottleneck at the cut: an encoder behind the head, a decoder before the tail, trained by
//! distillation while the model itself stays as it is (BottleNet: Eshratifar, Esmaili and Pedram, ISLPED
//! 2019; BottleFit: Matsubara et al., WoWMoM 2022).
//!
//! The encoder makes a code of `width` channels, each between -1 and 1, of a map's patches of `stride` by
//! `stride` places, or of each position of a sequence, or of a vector; the decoder makes a tensor of the
//! original shape of it. What else crosses the cut, such as a mask, passes by both.

use burn::{
    module::{Module, Param},
    tensor::{
        Tensor,
        module::{conv_transpose2d, conv2d},
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

use super::{
    Activation, Block, Init, ModelError, ModelSpec, Params, Pass, Port, StagePlan, Value,
    blocks::shape_error, spec::sizes_in_range,
};
use crate::tensor::DType;

/// Names of the two stages, and of their files in a checkpoint.
pub const ENCODER: &str = "encode";
pub const DECODER: &str = "decode";

/// Sizes of a bottleneck.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BottleneckSpec {
    /// Channels (of a map), or features of the code.
    pub width: usize,
    /// Height and width of a map's patch of which a place of the code is made; 1 for what is no map.
    pub stride: usize,
    /// Of the first weights.
    pub seed: u64,
}

impl BottleneckSpec {
    /// Refuses sizes that no layer can have.
    pub fn check(&self) -> Result<(), String> {
        sizes_in_range([self.width, self.stride])
    }

    /// What crosses this cut as numbers, or why there can be no bottleneck for it.
    pub fn port(&self, model: &ModelSpec, split: usize) -> Result<Port, String> {
        self.check()?;
        let plans = model.stages();
        if !(1..plans.len()).contains(&split) {
            let last = plans.len() - 1;
            return Err(format!("a bottleneck is at one of the split points 1 to {last}"));
        }
        let plan = &plans[split - 1];
        let mut floats = plan.outputs.iter().filter(|port| port.dtype == DType::F32);
        let (Some(port), None) = (floats.next(), floats.next()) else {
            let stage = &plan.name;
            return Err(format!("what leaves {stage} is not one tensor of numbers"));
        };
        let (stride, shape) = (self.stride, port.largest());
        let divides = match shape[..] {
            [_, height, width] => height % stride == 0 && width % stride == 0,
            _ => stride == 1,
        };
        match divides && (1..=3).contains(&shape.len()) {
            true => Ok(port.clone()),
            false => Err(format!(
                "a stride of {stride} does not divide {shape:?}, which leaves {}",
                plan.name
            )),
        }
    }

    /// Shape of the code of a tensor of this shape, batch included; none for another shape.
    pub fn code_shape(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let stride = self.stride;
        match *shape {
            [batch, _] => Some(vec![batch, self.width]),
            [batch, positions, _] => Some(vec![batch, positions, self.width]),
            [batch, _, height, width] if height % stride == 0 && width % stride == 0 => {
                Some(vec![batch, self.width, height / stride, width / stride])
            }
            _ => None,
        }
    }

    pub fn encoder(&self, model: &ModelSpec, split: usize) -> Result<StagePlan, String> {
        let port = self.port(model, split)?;
        let (spec, channels) = (self.clone(), channels(&port));
        Ok(StagePlan::new(ENCODER, Vec::new(), 0, move |params| {
            let Layer { weight, bias } = spec.layer(ENCODER, [spec.width, channels], params)?;
            Ok(Encoder { name: port.name.clone(), weight, bias, stride: spec.stride })
        }))
    }

    pub fn decoder(&self, model: &ModelSpec, split: usize) -> Result<StagePlan, String> {
        let port = self.port(model, split)?;
        let (spec, channels) = (self.clone(), channels(&port));
        Ok(StagePlan::new(DECODER, Vec::new(), 0, move |params| {
            let Layer { weight, bias } = spec.layer(DECODER, [channels, spec.width], params)?;
            Ok(Decoder { name: port.name.clone(), weight, bias, stride: spec.stride })
        }))
    }

    /// A weight `[width, channels, stride, stride]` and a bias; `[output, input]` says which way it goes.
    fn layer(
        &self,
        name: &str,
        [output, input]: [usize; 2],
        params: &mut Params<'_>,
    ) -> Result<Layer, ModelError> {
        let patch = self.stride * self.stride;
        let (shape, fan_in) = match name {
            ENCODER => ([output, input, self.stride, self.stride], input * patch),
            _ => ([input, output, self.stride, self.stride], input),
        };
        let init = Init::FanIn(fan_in);
        Ok(Layer {
            weight: params.param(&format!("{name}.weight"), shape, init)?,
            bias: params.param(&format!("{name}.bias"), [output], Init::Zeros)?,
        })
    }
}

struct Layer {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

/// Channels of a map, or features.
fn channels(port: &Port) -> usize {
    let shape = port.largest();
    if shape.len() == 3 { shape[0] } else { *shape.last().expect("it has a shape") }
}

/// `[batch, channels, h, w]` → `[batch, width, h / stride, w / stride]`, and alike for what is no map.
#[derive(Module, Debug)]
struct Encoder {
    #[module(skip)]
    name: String,
    /// `[width, channels, stride, stride]`
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
}

/// The way back.
#[derive(Module, Debug)]
struct Decoder {
    #[module(skip)]
    name: String,
    /// `[width, channels, stride, stride]`
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
}

impl Block for Encoder {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let [_, channels, _, _] = self.weight.dims();
        let options = ConvOptions::new([self.stride; 2], [0, 0], [1, 1], 1);
        on_maps(input, &self.name, pass.stage, [channels, self.stride], |x| {
            conv2d(x, self.weight.val(), Some(self.bias.val()), options).tanh()
        })
    }
}

impl Block for Decoder {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let [width, ..] = self.weight.dims();
        let options = ConvTransposeOptions::new([self.stride; 2], [0, 0], [0, 0], [1, 1], 1);
        on_maps(input, &self.name, pass.stage, [width, 1], |x| {
            conv_transpose2d(x, self.weight.val(), Some(self.bias.val()), options)
        })
    }
}

/// Changes the tensor of this name: vectors and positions of sequences are maps of one place.
fn on_maps(
    mut input: Activation,
    name: &str,
    stage: &str,
    [channels, divisor]: [usize; 2],
    change: impl FnOnce(Tensor<4>) -> Tensor<4>,
) -> Result<Activation, ModelError> {
    let value = input.take(stage, name)?;
    let dims = value.dims();
    let expected =
        || format!("{channels} channels, height and width divisible by {divisor}, none 0");
    let refuse = || shape_error(stage, expected(), &dims);
    // burn's convolutions overflow on a map without a place.
    if dims.contains(&0) {
        return Err(refuse());
    }
    let changed = match value {
        Value::R2(t) if t.dims()[1] == channels && divisor == 1 => {
            Value::R2(change(t.unsqueeze_dims(&[2, 3])).flatten::<2>(1, 3))
        }
        Value::R3(t) if t.dims()[2] == channels && divisor == 1 => {
            let [batch, positions, _] = t.dims();
            let code = change(t.reshape([batch * positions, channels, 1, 1]));
            let [_, width, _, _] = code.dims();
            Value::R3(code.reshape([batch, positions, width]))
        }
        Value::R4(t) => match t.dims() {
            [_, c, h, w] if c == channels && h % divisor == 0 && w % divisor == 0 => {
                Value::R4(change(t))
            }
            _ => return Err(refuse()),
        },
        _ => return Err(refuse()),
    };
    Ok(input.with(name, changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        model::{SeededWeights, Segment, model_by_name},
        tensor::HostTensor,
    };

    fn spec(width: usize, stride: usize) -> BottleneckSpec {
        BottleneckSpec { width, stride, seed: 1 }
    }

    #[test]
    fn a_code_has_its_shape_and_the_decoder_gives_the_original_one() {
        let lenet = Config::default().model;
        let bert = model_by_name("bert").unwrap();
        for (model, split, spec, shape) in [
            (&lenet, 4, spec(32, 2), vec![3, 64, 2, 2]),
            (&lenet, 2, spec(3, 1), vec![2, 32, 4, 4]),
            (&lenet, 5, spec(4, 1), vec![5, 128]),
            (&bert, 1, spec(8, 1), vec![2, 7, 768]),
        ] {
            let build = |plan: StagePlan| Segment::of_stage(&plan, &mut SeededWeights(3)).unwrap();
            let encoder = build(spec.encoder(model, split).unwrap());
            let decoder = build(spec.decoder(model, split).unwrap());
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|i| (i % 13) as f32 - 5.0).collect();
            let input = vec![("x".to_string(), HostTensor::from_f32(shape.clone(), &values))];
            let code = encoder.infer(&input).unwrap();
            assert_eq!(code[0].1.shape(), spec.code_shape(&shape).unwrap());
            assert!(code[0].1.to_f32().unwrap().iter().all(|v| v.abs() <= 1.0));
            assert_eq!(decoder.infer(&code).unwrap()[0].1.shape(), shape);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let lenet = Config::default().model;
        for (split, spec, problem) in [
            (0, spec(8, 1), "split points 1 to 5"),
            (6, spec(8, 1), "split points 1 to 5"),
            (4, spec(8, 3), "a stride of 3 does not divide [64, 2, 2], which leaves pool2"),
            (5, spec(8, 2), "a stride of 2 does not divide [128]"),
            (4, spec(0, 1), "size 0 is out of range"),
        ] {
            let text = spec.encoder(&lenet, split).err().expect("refused");
            assert!(text.contains(problem), "{text}");
        }
        let encoder = spec(8, 2).encoder(&lenet, 4).unwrap();
        let encoder = Segment::of_stage(&encoder, &mut SeededWeights(3)).unwrap();
        for shape in [vec![1, 32, 2, 2], vec![1, 64, 3, 2], vec![1, 64]] {
            let count = shape.iter().product();
            let input = vec![("x".to_string(), HostTensor::from_f32(shape, &vec![0.0; count]))];
            let text = encoder.infer(&input).unwrap_err().to_string();
            assert!(text.starts_with("stage encode: "), "{text}");
        }
    }
}
