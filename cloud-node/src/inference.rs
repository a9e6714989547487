//! One inference request: an activation in, the model's output out.

use std::{sync::Arc, time::Instant};

use cleave_shared::{compute::ComputePool, deadline::Deadline, telemetry::trace, wire::v1};
use tonic::Status;

use crate::{
    batcher::{Asked, Batcher},
    clock::Clock,
    cut_ports::CutPorts,
    handshake::Handshake,
    tails::Tails,
};

/// What inference needs; it keeps nothing of a request.
pub struct Inference {
    pub handshake: Arc<Handshake>,
    pub ports: CutPorts,
    pub tails: Arc<Tails>,
    pub pool: ComputePool,
    pub batcher: Batcher,
    pub clock: Arc<Clock>,
}

/// Who asks, and when.
pub struct Caller {
    /// The edge's name, or its machine.
    pub edge: String,
    /// When the request was complete.
    pub received_ns: u64,
    /// When its answer has to be there.
    pub by: Option<Deadline>,
}

impl Inference {
    /// Runs the tail.
    pub async fn run(
        &self,
        request: v1::InferRequest,
        caller: Caller,
    ) -> Result<v1::InferReply, Status> {
        let Caller { edge, received_ns, by } = caller;
        let agreed = self.handshake.check(request.agreement.as_ref()).await?;
        self.ports.check(agreed.cut.split, &request.activation)?;
        let tail = self.tails.get(&agreed.cut, &self.pool).await?;
        let (cut, codec) = (agreed.cut, agreed.activation_codec);
        let asked = Asked { cut, tail, codec, activation: request.activation, by };
        let reply = self.batcher.run(&edge, asked).await?;
        trace::record_parts(&[
            ("queue", reply.queue_ms),
            ("decode", reply.decode_ms),
            ("tail", reply.tail_ms),
            ("encode", reply.encode_ms),
        ]);
        let (sent_ns, instance) = (self.clock.now_ns(), self.clock.instance);
        Ok(v1::InferReply { received_ns, sent_ns, instance, ..reply })
    }
}

pub fn ms_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}
