//! One inference request: an activation in, the model's output out.

use std::{sync::Arc, time::Instant};

use cleave_shared::{
    codec::F32,
    compute::ComputePool,
    telemetry::trace,
    wire::{self, v1},
};
use tonic::Status;

use crate::{
    clock::Clock,
    handshake::Handshake,
    service::{compute_status, model_status},
    tails::Tails,
};

/// What inference needs; it keeps nothing of a request.
pub struct Inference {
    pub handshake: Arc<Handshake>,
    pub tails: Arc<Tails>,
    pub pool: ComputePool,
    pub clock: Arc<Clock>,
}

impl Inference {
    /// Runs the tail. `received_ns` is when the request was complete.
    pub async fn run(
        &self,
        request: v1::InferRequest,
        received_ns: u64,
    ) -> Result<v1::InferReply, Status> {
        let agreed = self.handshake.check(request.agreement.as_ref()).await?;
        let tail = self.tails.get(&agreed.cut, &self.pool).await?;
        let codec = agreed.activation_codec;
        let queued = Instant::now();
        let job = move || {
            let queue_ms = ms_since(queued);
            let begin = Instant::now();
            let activation = wire::decode(request.activation, codec.as_ref())?;
            let decode_ms = ms_since(begin);
            let begin = Instant::now();
            let output = tail.infer(&activation).map_err(model_status)?;
            let tail_ms = ms_since(begin);
            let begin = Instant::now();
            // What the model says is exact, whatever it was told.
            let output = wire::encode(output, &F32);
            let encode_ms = ms_since(begin);
            Ok(v1::InferReply {
                output,
                tail_ms,
                queue_ms,
                decode_ms,
                encode_ms,
                ..Default::default()
            })
        };
        let reply: Result<v1::InferReply, Status> =
            self.pool.run(job).await.map_err(compute_status)?;
        let reply = reply?;
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
