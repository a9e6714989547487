//! Whether an edge's half and ours are halves of one model.

use cleave_shared::{
    checkpoint::WeightsId,
    config::Config,
    model::ModelSpec,
    wire::{differences, v1::Agreement},
};
use tonic::Status;

/// What the cloud insists on.
pub struct Handshake {
    own: Agreement,
    spec: ModelSpec,
}

/// Which tail an edge asks for: stages `split..` of these weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cut {
    pub split: usize,
    pub weights: WeightsId,
}

impl Handshake {
    pub fn new(config: &Config) -> Self {
        let own = config.agreement(config.split(), "");
        Self { own, spec: config.model.clone() }
    }

    /// FAILED_PRECONDITION names everything that differs. The split point is the edge's to choose,
    /// as long as the model has it.
    pub fn check(&self, edge: Option<&Agreement>) -> Result<Cut, Status> {
        let edge = edge.ok_or_else(|| Status::invalid_argument("the message has no agreement"))?;
        let mut lines = differences(edge, &self.own);
        let split = edge.split_point as usize;
        let stages = self.spec.stage_count();
        if split > stages {
            lines.push(format!("split point: edge has {split}, the model allows 0 to {stages}"));
        }
        if !lines.is_empty() {
            let lines = lines.join("; ");
            return Err(Status::failed_precondition(format!("edge and cloud differ: {lines}")));
        }
        let weights = edge.weights.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
        Ok(Cut { split, weights })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn everything_that_differs_is_named() {
        let handshake = Handshake::new(&Config::default());
        let good = Agreement { weights: "seed:7".into(), ..handshake.own.clone() };
        let cut = handshake.check(Some(&good)).unwrap();
        assert_eq!(cut, Cut { split: 4, weights: WeightsId::Seed(7) });

        let bad = Agreement {
            protocol_version: 9,
            spec_hash: "0".into(),
            spec: "{}".into(),
            split_point: 99,
            activation_codec: "f16".into(),
            weight_format: "int4".into(),
            ..good.clone()
        };
        let status = handshake.check(Some(&bad)).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        for part in [
            "protocol version: edge has 9, cloud has 2",
            "model spec: edge has {}, cloud has {\"family\":\"lenet\"",
            "activation codec: edge has f16, cloud has f32",
            "quantize.weights: edge has int4, cloud has none",
            "split point: edge has 99, the model allows 0 to 6",
        ] {
            assert!(status.message().contains(part), "{part}: {}", status.message());
        }
        let nameless = Agreement { weights: "latest".into(), ..good };
        assert_eq!(handshake.check(Some(&nameless)).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(handshake.check(None).unwrap_err().code(), Code::InvalidArgument);
    }
}
