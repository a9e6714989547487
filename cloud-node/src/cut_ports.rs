//! What crosses each cut. An activation is compared with it before it is decoded: a sparse code of a few bytes may say
//! that it is a tensor of any size.

use cleave_shared::{
    model::{Dim, ModelSpec, Port},
    tensor::DType,
    wire::v1,
};
use tonic::Status;

/// The ports of each split point.
pub struct CutPorts(Vec<Vec<Port>>);

impl CutPorts {
    pub fn of(spec: &ModelSpec) -> Self {
        let mut inputs = spec.inputs();
        if let [only] = &mut inputs[..] {
            // As stages name it.
            only.name = "x".into();
        }
        let outputs = spec.stages().into_iter().map(|stage| stage.outputs);
        Self(std::iter::once(inputs).chain(outputs).collect())
    }

    /// INVALID_ARGUMENT says what is not as it is declared.
    pub fn check(&self, split: usize, activation: &[v1::Tensor]) -> Result<(), Status> {
        let ports = self.0.get(split).map_or(&[][..], Vec::as_slice);
        let wrong = |text: String| Err(Status::invalid_argument(format!("the activation: {text}")));
        let batch = activation.first().and_then(|t| t.shape.first()).copied().unwrap_or(0);
        for tensor in activation {
            let name = &tensor.name;
            let Some(port) = ports.iter().find(|port| port.name == *name) else {
                return wrong(format!("there is no tensor {name:?} at split point {split}"));
            };
            if !is_of(port, tensor, batch) {
                return wrong(format!("{name:?} is {:?}, not {}", tensor.shape, declared(port)));
            }
        }
        let names = || activation.iter().map(|tensor| &tensor.name);
        match ports.iter().find(|port| !port.optional && names().all(|name| *name != port.name)) {
            Some(port) => wrong(format!("{:?} is missing", port.name)),
            None if names().count() > ports.len() => wrong("a tensor is there twice".into()),
            None => Ok(()),
        }
    }
}

/// Such as `FP32 [batch, up to 512, 768]`.
fn declared(port: &Port) -> String {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(n) => format!(", {n}"),
        Dim::UpTo(n) => format!(", up to {n}"),
    };
    format!("{} [batch{}]", port.dtype.name(), port.shape.iter().map(extent).collect::<String>())
}

fn is_of(port: &Port, tensor: &v1::Tensor, batch: u64) -> bool {
    let dtype = match v1::DType::try_from(tensor.dtype) {
        Ok(v1::DType::F32) => DType::F32,
        Ok(v1::DType::I64) => DType::I64,
        Ok(v1::DType::U8) => DType::U8,
        _ => return false,
    };
    let Some((&samples, sample)) = tensor.shape.split_first() else { return false };
    let fits = |(&extent, dim): (&u64, &Dim)| match *dim {
        Dim::Fixed(n) => extent == n as u64,
        Dim::UpTo(n) => (1..=n as u64).contains(&extent),
    };
    dtype == port.dtype
        && samples == batch
        && batch > 0
        && sample.len() == port.shape.len()
        && sample.iter().zip(&port.shape).all(fits)
}

#[cfg(test)]
mod tests {
    use cleave_shared::{
        codec::F32,
        model::{MlpSpec, SeededWeights, Segment},
        tensor::HostTensor,
        wire,
    };
    use tonic::Code;

    use super::*;

    #[test]
    fn only_what_is_declared_is_decoded() {
        let spec = ModelSpec::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![16, 12], classes: 10 });
        let ports = CutPorts::of(&spec);
        let stages = spec.stage_count();
        let input = vec![("x".to_string(), HostTensor::from_f32(vec![3, 1, 8, 8], &[0.5; 192]))];
        for split in 0..=stages {
            let head = Segment::build(&spec, 0..split, &mut SeededWeights(1), false).unwrap();
            let sent = wire::encode(head.infer(&input).unwrap(), &F32);
            ports.check(split, &sent).unwrap();
            let wrong: [&dyn Fn(&mut v1::Tensor); 6] = [
                &|t| t.shape[0] = 0,
                &|t| *t.shape.last_mut().unwrap() = 1 << 27,
                &|t| t.shape.push(1),
                &|t| t.shape.clear(),
                &|t| t.dtype = v1::DType::I64.into(),
                &|t| t.name = "y".into(),
            ];
            for change in wrong {
                let mut sent = sent.clone();
                change(&mut sent[0]);
                let status = ports.check(split, &sent).unwrap_err();
                assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            }
            assert!(ports.check(split, &[]).is_err());
            assert!(ports.check(split, &[sent[0].clone(), sent[0].clone()]).is_err());
        }
        assert!(ports.check(stages + 1, &[]).is_ok(), "the handshake refuses it");
    }
}
