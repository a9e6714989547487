//! Whether an edge's half and ours are halves of one model.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::{RunStore, WeightsId},
    codec::{Codecs, LearnedName, SharedCodec},
    config::Config,
    model::ModelSpec,
    wire::{differences, v1::Agreement},
};
use tonic::Status;

use crate::bottlenecks::Bottlenecks;

/// What the cloud insists on.
pub struct Handshake {
    own: Agreement,
    spec: ModelSpec,
    codecs: Codecs,
    bottlenecks: Bottlenecks,
}

/// Which tail an edge asks for: stages `split..` of these weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cut {
    pub split: usize,
    pub weights: WeightsId,
}

/// What an edge chose.
#[derive(Clone)]
pub struct Agreed {
    pub cut: Cut,
    pub activation_codec: SharedCodec,
    pub gradient_codec: SharedCodec,
}

impl Handshake {
    /// `store`: this node's runs, where bottlenecks are.
    pub fn new(config: &Config, store: Arc<RunStore>) -> Self {
        let own = config.agreement(config.split(), "");
        let codecs = Codecs::new(&config.codec.allowed);
        let bottlenecks = Bottlenecks::new(config, store);
        Self { own, spec: config.model.clone(), codecs, bottlenecks }
    }

    /// A codec by its name, if it is allowed here.
    pub fn codec(&self, name: &str) -> Result<SharedCodec, Status> {
        self.codecs.get(name).map_err(|e| Status::failed_precondition(e.to_string()))
    }

    /// FAILED_PRECONDITION names everything that differs. The split point is the edge's to choose,
    /// as long as the model has it, and so are codecs that are allowed here.
    pub async fn check(&self, edge: Option<&Agreement>) -> Result<Agreed, Status> {
        let edge = edge.ok_or_else(|| Status::invalid_argument("the message has no agreement"))?;
        let mut lines = differences(edge, &self.own);
        let split = edge.split_point as usize;
        let stages = self.spec.stage_count();
        if split > stages {
            lines.push(format!("split point: edge has {split}, the model allows 0 to {stages}"));
        }
        let by_name = |name: &str| self.codecs.get(name).map_err(|e| e.to_string());
        let activation = match LearnedName::is_meant(&edge.activation_codec) {
            true => self.bottlenecks.get(edge).await,
            false => by_name(&edge.activation_codec),
        };
        let mut known = |what: &str, codec: Result<SharedCodec, String>| {
            codec.map_err(|problem| lines.push(format!("{what} codec: {problem}"))).ok()
        };
        let activation_codec = known("activation", activation);
        let gradient_codec = known("gradient", by_name(&edge.gradient_codec));
        if !lines.is_empty() {
            let lines = lines.join("; ");
            return Err(Status::failed_precondition(format!("edge and cloud differ: {lines}")));
        }
        let weights = edge.weights.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let cut = Cut { split, weights };
        match (activation_codec, gradient_codec) {
            (Some(activation_codec), Some(gradient_codec)) => {
                Ok(Agreed { cut, activation_codec, gradient_codec })
            }
            _ => Err(Status::internal("a codec is neither known nor refused")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// Nothing is in it.
    fn store() -> Arc<RunStore> {
        Arc::new(RunStore::new("no-runs"))
    }

    #[tokio::test]
    async fn everything_that_differs_is_named() {
        let handshake = Handshake::new(&Config::default(), store());
        let good = Agreement { weights: "seed:7".into(), ..handshake.own.clone() };
        let agreed = handshake.check(Some(&good)).await.unwrap();
        assert_eq!(agreed.cut, Cut { split: 4, weights: WeightsId::Seed(7) });

        let bad = Agreement {
            protocol_version: 9,
            spec_hash: "0".into(),
            spec: "{}".into(),
            split_point: 99,
            activation_codec: "f13".into(),
            weight_format: "int4".into(),
            ..good.clone()
        };
        let status = handshake.check(Some(&bad)).await.err().unwrap();
        assert_eq!(status.code(), Code::FailedPrecondition);
        for part in [
            "protocol version: edge has 9, cloud has 3",
            "model spec: edge has {}, cloud has {\"family\":\"lenet\"",
            "activation codec: \"f13\" is unknown; allowed: f32, f16,",
            "quantize.weights: edge has int4, cloud has none",
            "split point: edge has 99, the model allows 0 to 6",
        ] {
            assert!(status.message().contains(part), "{part}: {}", status.message());
        }
        let nameless = Agreement { weights: "latest".into(), ..good };
        let refused = async |edge| handshake.check(edge).await.err().unwrap().code();
        assert_eq!(refused(Some(&nameless)).await, Code::InvalidArgument);
        assert_eq!(refused(None).await, Code::InvalidArgument);
    }

    #[tokio::test]
    async fn codecs_are_the_edges_choice_among_those_allowed() {
        let mut config = Config::default();
        config.codec.allowed = vec!["f32".into(), "topk".into()];
        let handshake = Handshake::new(&config, store());
        let asked = async |activation: &str, gradient: &str| {
            let agreement = Agreement {
                activation_codec: activation.into(),
                gradient_codec: gradient.into(),
                weights: "seed:7".into(),
                ..handshake.own.clone()
            };
            handshake.check(Some(&agreement)).await
        };
        let agreed = asked("topk:0.1", "f32").await.unwrap();
        assert_eq!(agreed.activation_codec.name(), "topk:0.1");
        assert_eq!(agreed.gradient_codec.name(), "f32");
        let status = asked("f32", "int8").await.err().unwrap();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(
            status.message(),
            "edge and cloud differ: gradient codec: \"int8\" is not allowed; allowed: f32, topk \
             (codec.allowed)"
        );
    }
}
