//! The Rust part of `benches/instructions`: what a request pays at the cut, one case at a time.
//!
//! ```text
//! counts list      the cases, a line each
//! counts about     how this program was built, and what CPU it finds: a line of JSON
//! counts CASE N    sets the case up and does it N times, in this thread
//! ```
//!
//! `encode/CODEC` and `decode/CODEC` are a codec by itself. `send/request` is what an edge does with an activation
//! until HTTP/2 has the bytes, `receive/request` what a cloud does with them until its tail has the activation;
//! `send/reply` and `receive/reply` are the way back. A call clones its input, which copies no tensor.

use std::{error::Error, hint::black_box, pin::pin, process::ExitCode};

use bytes::Bytes;
use cleave_shared::{
    codec::{F32, by_name},
    config::Config,
    memory,
    tensor::HostTensor,
    wire::{self, Assembler, NamedTensors, SizedEncoder, v1},
};
use futures_util::{FutureExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tonic::{Status, Streaming, codec::EncodeBody};
use tonic_prost::ProstDecoder;

const CODECS: [&str; 9] =
    ["f32", "f16", "bf16", "int8", "int4", "topk:0.1", "randk:0.1", "f32+lz4", "f32+zstd"];
const MESSAGES: [&str; 4] = ["send/request", "receive/request", "send/reply", "receive/reply"];

/// Of an activation early in a network of convolutions: 196 KiB.
const SHAPE: [usize; 4] = [1, 64, 28, 28];
const SEED: u64 = 7;
/// `cloud.max_activation_bytes`.
const LIMIT: usize = 512 << 20;
/// Bytes in which HTTP/2 hands a message on, unless the peers agree on more.
const FRAME: usize = 16 << 10;

type Call = Box<dyn Fn()>;

fn main() -> ExitCode {
    // First of all, as in the nodes.
    memory::keep_little();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => names().for_each(|name| println!("{name}")),
        ["about"] => println!("{}", about()),
        [name, calls] => {
            let calls: u32 =
                calls.parse().map_err(|_| format!("{calls:?} is no number of calls"))?;
            let call = case(name)?;
            (0..calls).for_each(|_| call());
        }
        _ => return Err("usage: counts list | about | CASE N".into()),
    }
    Ok(())
}

fn names() -> impl Iterator<Item = String> {
    let both = |codec: &&str| ["encode", "decode"].map(|work| format!("{work}/{codec}"));
    CODECS.iter().flat_map(both).chain(MESSAGES.map(String::from))
}

/// What must be equal for counts to be comparable, as far as this program knows.
fn about() -> Value {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    json!({ "build": build, "cpu": cpu() })
}

/// By these features code chooses its path; under Valgrind they are what that can run.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    use std::arch::is_x86_feature_detected;
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    let there = features.iter().filter(|(_, there)| *there).map(|(name, _)| format!(" {name}"));
    format!("x86_64{}", there.collect::<String>())
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    std::env::consts::ARCH.into()
}

fn case(name: &str) -> Result<Call, Box<dyn Error>> {
    let tensor = activation();
    let tensors: NamedTensors = vec![("x".into(), tensor.clone())];
    let agreement = Config::default().agreement(4, "seed:7");
    let call: Call = match name.split_once('/') {
        Some(("encode", codec)) => {
            let codec = by_name(codec)?;
            Box::new(move || {
                black_box(codec.encode(tensor.clone()));
            })
        }
        Some(("decode", codec)) => {
            let codec = by_name(codec)?;
            let bytes = odd(&codec.encode(tensor));
            Box::new(move || {
                let decoded = codec.decode(SHAPE.to_vec(), bytes.clone());
                black_box(decoded.expect("what this codec has encoded"));
            })
        }
        Some(("send", "request")) => Box::new(move || {
            black_box(send_request(&agreement, tensors.clone()));
        }),
        Some(("receive", "request")) => {
            let bytes = send_request(&agreement, tensors);
            Box::new(move || {
                black_box(receive_request(bytes.clone()));
            })
        }
        Some(("send", "reply")) => Box::new(move || {
            black_box(send_reply(tensors.clone()));
        }),
        Some(("receive", "reply")) => {
            let bytes = send_reply(tensors);
            Box::new(move || {
                black_box(receive_reply(bytes.clone()));
            })
        }
        _ => return Err(format!("{name:?} is no case: `counts list` has them").into()),
    };
    Ok(call)
}

/// Nearly normal numbers after a ReLU: half of them are zero.
fn activation() -> HostTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut uniform = || (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
    let mut value = || ((0..4).map(|_| uniform()).sum::<f32>() - 2.0).max(0.0);
    let values: Vec<f32> = (0..SHAPE.iter().product::<usize>()).map(|_| value()).collect();
    HostTensor::from_f32(SHAPE.to_vec(), &values)
}

/// The same bytes from an odd address: those of a message stand anywhere, and what that costs counts.
fn odd(bytes: &[u8]) -> Bytes {
    Bytes::from([&[0][..], bytes].concat()).slice(1..)
}

fn send_request(agreement: &v1::Agreement, tensors: NamedTensors) -> Bytes {
    let activation = wire::encode(tensors, &F32);
    send(v1::InferRequest { agreement: Some(agreement.clone()), activation })
}

fn receive_request(bytes: Bytes) -> NamedTensors {
    let request: v1::InferRequest = receive(bytes);
    let whole = Assembler::new(request, LIMIT).and_then(Assembler::finish);
    wire::decode(whole.expect("all of it").activation, &F32).expect("what was just encoded")
}

/// No field is zero: Protobuf leaves those out.
fn send_reply(tensors: NamedTensors) -> Bytes {
    send(v1::InferReply {
        output: wire::encode(tensors, &F32),
        tail_ms: 1.5,
        queue_ms: 0.5,
        received_ns: 1 << 40,
        sent_ns: 1 << 41,
        decode_ms: 0.25,
        encode_ms: 0.25,
        instance: u64::MAX,
    })
}

fn receive_reply(bytes: Bytes) -> NamedTensors {
    let reply: v1::InferReply = receive(bytes);
    wire::decode(reply.output, &F32).expect("what was just encoded")
}

/// What HTTP/2 is given of a message, whoever sends it.
fn send<M: Message + 'static>(message: M) -> Bytes {
    let source = tokio_stream::once(Ok::<_, Status>(message));
    let mut body = pin!(EncodeBody::new_client(SizedEncoder::<M>::default(), source, None, None));
    let frame = body.frame().now_or_never().flatten().expect("a message that is there");
    frame.expect("a message of no bounded length").into_data().expect("the message")
}

/// What tonic makes of the frames that come from HTTP/2.
fn receive<M: Message + Default + 'static>(bytes: Bytes) -> M {
    let begins = (0..bytes.len()).step_by(FRAME);
    let frames = begins.map(move |at| {
        let end = bytes.len().min(at + FRAME);
        Ok::<_, Status>(Frame::data(bytes.slice(at..end)))
    });
    let body = StreamBody::new(stream::iter(frames));
    let mut messages = Streaming::new_request(ProstDecoder::<M>::default(), body, None, None);
    let message = messages.message().now_or_never().expect("frames that are all there");
    message.expect("what was just encoded").expect("a message")
}
