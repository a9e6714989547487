//! Edges of a cloud without their heads: each sends an activation that was computed once, over a
//! connection of its own, so that all the time that is seen is the cloud's and the protocol's.

use std::sync::Arc;

use clap::Args;
use cleave_shared::{
    codec::F32,
    config::{Config, ConfigArgs},
    link::{Link, Profile},
    model::{Port, Segment},
    tensor::HostTensor,
    wire::{
        self, NamedTensors,
        v1::{self, Agreement},
    },
};
use edge_node::{
    cloud::{CloudClient, InferCall, explain},
    stack,
};

use crate::{
    closed_loop::{self, Caller, Span, Summary},
    sample::sample,
    starting_model::StartingModel,
};

/// Different activations: edges whose answers were mixed up in a batch would see it.
const ACTIVATIONS: u64 = 8;
/// Greatest difference from the unsplit model's output, as a part of its greatest value. A batch
/// may add in another order.
const TOLERANCE: f32 = 1e-4;

/// The configuration says which model, and where it is cut.
#[derive(Args)]
pub struct EdgeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Port on this machine where the cloud answers
    #[arg(long)]
    port: u16,
    /// Edges, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    edges: u16,
    #[command(flatten)]
    span: Span,
}

pub async fn measure(args: EdgeArgs) -> Result<Summary, String> {
    let EdgeArgs { config, port, edges, span } = args;
    let mut config = config.load().map_err(|e| e.to_string())?;
    config.edge.cloud = format!("http://127.0.0.1:{port}");
    let split = config.split();
    if split == config.model.stage_count() {
        return Err(format!("split_point: {split} leaves nothing to the cloud"));
    }
    let model = StartingModel::open(&config)?;
    let agreement = config.agreement(split, &model.weights().to_string());
    let (head, whole) = (model.segment(0..split)?, model.whole()?);
    let computed = (0..ACTIVATIONS).map(|seed| Computed::new(&config, &head, &whole, seed));
    let computed = computed.collect::<Result<Vec<Arc<Computed>>, String>>()?;
    let mut callers = Vec::with_capacity(edges.into());
    for (_, computed) in (0..edges).zip(computed.iter().cycle()) {
        callers.push(Edge::open(&config, &agreement, computed.clone()).await?);
    }
    Ok(closed_loop::run(callers, span).await)
}

/// What is sent, and what has to come back.
struct Computed {
    activation: Vec<v1::Tensor>,
    /// The unsplit model's.
    output: NamedTensors,
    /// Most bytes of the output.
    output_bytes: usize,
}

impl Computed {
    fn new(
        config: &Config,
        head: &Segment,
        whole: &Segment,
        seed: u64,
    ) -> Result<Arc<Self>, String> {
        let input = sample(&config.model, config.plan.length, seed);
        let activation = head.infer(&input).map_err(|e| e.to_string())?;
        let activation = wire::encode(activation, config.activation_codec().as_ref());
        let output = whole.infer(&input).map_err(|e| e.to_string())?;
        let output_bytes = config.model.outputs().iter().map(Port::bytes).sum();
        Ok(Arc::new(Self { activation, output, output_bytes }))
    }
}

struct Edge {
    cloud: CloudClient,
    agreement: Agreement,
    computed: Arc<Computed>,
    /// Whether an answer's values were compared.
    compared: bool,
}

impl Edge {
    /// Connects, and agrees with the cloud.
    async fn open(
        config: &Config,
        agreement: &Agreement,
        computed: Arc<Computed>,
    ) -> Result<Self, String> {
        let profile = Profile::builtin("none").ok_or("there is no link profile \"none\"")?;
        let cloud = stack::client(config, &Link::new(profile, config.link.seed))?;
        let bound = cloud.bind(agreement).await;
        bound.map_err(|status| explain(cloud.address(), &status))?;
        // As every edge does it: the handshake has compared the spec.
        let agreement = Agreement { spec: String::new(), ..agreement.clone() };
        Ok(Self { cloud, agreement, computed, compared: false })
    }

    /// Looks at the shape of each answer, and at the values of the first.
    fn check(&mut self, found: &NamedTensors) -> Result<(), String> {
        let expected = &self.computed.output;
        let alike = |(found, expected): (&(String, HostTensor), &(String, HostTensor))| {
            let ((name, found), (own, expected)) = (found, expected);
            name == own && found.shape() == expected.shape() && found.dtype() == expected.dtype()
        };
        if found.len() != expected.len() || !found.iter().zip(expected).all(alike) {
            return Err("an output of another shape".into());
        }
        if !self.compared {
            let close = found.iter().zip(expected).all(|(found, own)| is_close(&found.1, &own.1));
            if !close {
                return Err("another output than the unsplit model's".into());
            }
            self.compared = true;
        }
        Ok(())
    }
}

/// Floats may be rounded otherwise; anything else is the same.
fn is_close(found: &HostTensor, expected: &HostTensor) -> bool {
    let (Ok(values), Ok(own)) = (found.to_f32(), expected.to_f32()) else {
        return found == expected;
    };
    let greatest = own.iter().fold(0.0, |greatest: f32, value| greatest.max(value.abs()));
    values.iter().zip(&own).all(|(value, own)| (value - own).abs() <= TOLERANCE * greatest)
}

impl Caller for Edge {
    async fn ask(&mut self) -> Result<(), String> {
        let Computed { activation, output_bytes, .. } = &*self.computed;
        let call = InferCall {
            agreement: self.agreement.clone(),
            activation: activation.clone(),
            output_bytes: *output_bytes,
            deadline: None,
        };
        let answer = self.cloud.infer(call).await;
        let answer = answer.map_err(|status| format!("{:?}", status.code()))?;
        let output = wire::decode(answer.reply.output, &F32);
        self.check(&output.map_err(|_| "an output that cannot be read")?)
    }
}
