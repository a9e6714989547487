//! What requests need to have in common to be one micro-batch.

use std::iter;

use cleave_shared::{
    codec::{AFFINE_BLOCK, CodecName},
    model::{Dim, ModelSpec, Port},
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// Inputs that differ in nothing but the number of samples: name, element type, and the shape of one sample. With an
/// optional input they are of another kind than without.
#[derive(Debug, PartialEq)]
pub struct Kind(Vec<(String, DType, Vec<usize>)>);

impl Kind {
    /// That of these inputs, and how many samples they have; none if they have not all as many.
    pub fn of(inputs: &NamedTensors) -> Option<(usize, Self)> {
        let samples = *inputs.first()?.1.shape().first()?;
        let one = |(name, tensor): &(String, HostTensor)| {
            let (batch, sample) = tensor.shape().split_first()?;
            (*batch == samples).then(|| (name.clone(), tensor.dtype(), sample.to_vec()))
        };
        Some((samples, Self(inputs.iter().map(one).collect::<Option<_>>()?)))
    }
}

/// For each split point, whether the floats that cross of one sample are a whole number of blocks.
pub struct Cuts(Vec<bool>);

impl Cuts {
    pub fn of(spec: &ModelSpec) -> Self {
        let stages = spec.stages().into_iter().map(|stage| stage.outputs);
        Self(iter::once(spec.inputs()).chain(stages).map(|ports| in_blocks(&ports)).collect())
    }

    /// Whether what this codec makes of a sample does not depend on those that are sent with it. In a block with values
    /// of two samples the larger ones would coarsen the others, and what is infinite would take them along.
    pub fn keep_apart(&self, split: usize, codec: &str) -> bool {
        let shares = |name: CodecName| name.families().any(|f| matches!(f, "int8" | "int4"));
        self.0.get(split).is_some_and(|whole| *whole)
            || !codec.parse::<CodecName>().is_ok_and(shares)
    }
}

/// Whatever the extents are that vary. Blocks follow the order of memory, whatever the shape is (docs/codecs.md).
fn in_blocks(ports: &[Port]) -> bool {
    let fixed = |port: &Port| -> usize {
        let extents = port.shape.iter().map(|dim| match *dim {
            Dim::Fixed(extent) => extent,
            Dim::UpTo(_) => 1,
        });
        extents.product()
    };
    ports.iter().filter(|port| port.dtype == DType::F32).all(|port| fixed(port) % AFFINE_BLOCK == 0)
}

#[cfg(test)]
mod tests {
    use cleave_shared::{
        codec,
        model::{LenetSpec, MlpSpec},
        tensor::batch,
    };

    use super::*;

    fn floats(shape: &[usize], scale: f32) -> HostTensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i * 37 % 101) as f32 * scale).collect();
        HostTensor::from_f32(shape.to_vec(), &values)
    }

    #[test]
    fn kinds_differ_in_names_types_shapes_and_what_is_left_out() {
        let inputs = |tensors: &[(&str, HostTensor)]| -> NamedTensors {
            tensors.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
        };
        let (x, ids) = (floats(&[2, 3], 1.0), HostTensor::from_i64(vec![2, 3], &[1; 6]));
        let (samples, kind) = Kind::of(&inputs(&[("x", x.clone())])).unwrap();
        assert_eq!(samples, 2);
        let same = Kind::of(&inputs(&[("x", floats(&[7, 3], 0.5))])).unwrap();
        assert_eq!(same, (7, kind));
        for other in [
            vec![("y", x.clone())],
            vec![("x", ids.clone())],
            vec![("x", floats(&[2, 4], 1.0))],
            vec![("x", x.clone()), ("mask", ids.clone())],
        ] {
            assert_ne!(Kind::of(&inputs(&other)).unwrap().1, same.1, "{other:?}");
        }
        let uneven = vec![("x", x), ("y", floats(&[3], 1.0))];
        for none in [vec![], vec![("x", floats(&[], 1.0))], uneven] {
            assert_eq!(Kind::of(&inputs(&none)), None);
        }
    }

    /// Equal bit for bit where the codec is said to keep samples apart, and not elsewhere.
    #[test]
    fn samples_cross_as_each_alone_where_blocks_end_with_them() {
        for name in ["f32", "f16", "bf16", "int8", "int4+zstd", "topk:0.1", "randk:0.25"] {
            let codec = codec::by_name(name).unwrap();
            let through = |tensor: &HostTensor| {
                let sent = codec.encode(tensor.clone());
                codec.decode(tensor.shape().to_vec(), sent).unwrap()
            };
            for elements in [AFFINE_BLOCK, AFFINE_BLOCK / 2, 3 * AFFINE_BLOCK] {
                let alone = [floats(&[1, elements], 1.0), floats(&[2, elements], 1e3)];
                let together = through(&batch::join(&[&alone[0], &alone[1]]).unwrap());
                let arrived = batch::split(&together, &[1, 2]).unwrap();
                let same = arrived == [through(&alone[0]), through(&alone[1])];
                let cuts = Cuts(vec![in_blocks(&[Port::float("x", &[elements])])]);
                assert_eq!(same, cuts.keep_apart(0, name), "{name}, {elements} values a sample");
            }
        }
    }

    #[test]
    fn a_cut_is_in_blocks_by_what_crosses_it() {
        // 1x8x8, then 32x8x8, 32x4x4, 64x4x4, 64x2x2, 128, 10.
        let lenet = ModelSpec::Lenet(LenetSpec {
            input: [1, 8, 8],
            channels: vec![32, 64],
            hidden: vec![128],
            classes: 10,
        });
        assert_eq!(Cuts::of(&lenet).0, [false, true, true, true, false, false, false]);
        let mlp = ModelSpec::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![1024], classes: 10 });
        let cuts = Cuts::of(&mlp);
        assert!(cuts.keep_apart(1, "int8") && !cuts.keep_apart(0, "int8"));
        assert!(cuts.keep_apart(0, "f16") && cuts.keep_apart(0, "bottleneck:a:7"));
    }
}
