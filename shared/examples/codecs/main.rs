//! The Rust part of `benches/codecs`.
//!
//!     codecs activations FOLDER MODEL BATCH STAGE...    what leaves these stages, as FP32 in files
//!     codecs time | size   reads lines "CODEC SEED|- FILE EXTENT,EXTENT,..", answers each with a line of JSON
//!
//! The model has random weights and sees smooth random images: its activations have the zeros of ReLUs and the
//! scale that layers give them.

use std::{
    error::Error,
    fs,
    hint::black_box,
    io::{BufRead, Write, stdin, stdout},
    path::Path,
    time::Duration,
};

use cleave_shared::{
    codec::by_name,
    model::{SeededWeights, Segment, named},
    tensor::{DType, HostTensor},
};
use serde_json::json;

/// One timing takes at least so long.
const LEAST: Duration = Duration::from_millis(30);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["activations", folder, model, batch, ref stages @ ..] => {
            activations(Path::new(folder), model, batch.parse()?, stages)
        }
        ["time"] => answer(true),
        ["size"] => answer(false),
        _ => Err("usage: codecs activations FOLDER MODEL BATCH STAGE... | time | size".into()),
    }
}

fn activations(
    folder: &Path,
    model: &str,
    batch: usize,
    stages: &[&str],
) -> Result<(), Box<dyn Error>> {
    let spec = named::model_by_name(model)?;
    let names = spec.stage_names();
    let extents = spec.inputs()[0].shape.clone();
    let shape: Vec<usize> = [batch].into_iter().chain(extents.iter().map(|d| d.most())).collect();
    let image =
        |i: usize| (i as f32 * 0.37).sin() + ((i * 7919) % 104_729) as f32 / 104_729.0 - 0.5;
    let values: Vec<f32> = (0..shape.iter().product()).map(image).collect();
    let mut activation = vec![("x".to_string(), HostTensor::from_f32(shape, &values))];
    let mut weights = SeededWeights(7);
    for (index, name) in names.iter().enumerate() {
        let stage = Segment::build(&spec, index..index + 1, &mut weights, false)?;
        activation = stage.infer(&activation)?;
        if stages.contains(&name.as_str()) {
            let tensor = &activation[0].1;
            fs::write(folder.join(name), tensor.data())?;
            println!("{}", json!({ "stage": name, "shape": tensor.shape() }));
        }
    }
    Ok(())
}

/// With times, which take a while, or without.
fn answer(timed: bool) -> Result<(), Box<dyn Error>> {
    for line in stdin().lock().lines() {
        let line = line?;
        let [codec, seed, file, shape] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("{line:?} is no question").into());
        };
        let codec = by_name(codec)?;
        let seed: Option<u64> = seed.parse().ok();
        let shape = shape.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let tensor = HostTensor::new(DType::F32, shape.clone(), fs::read(file)?.into())?;
        let encode = || match seed {
            Some(seed) => codec.encode_seeded(tensor.clone(), seed),
            None => codec.encode(tensor.clone()),
        };
        let sent = encode();
        if !timed {
            println!("{}", json!({ "bytes": sent.len() }));
            stdout().flush()?;
            continue;
        }
        let encode_s = mean(|| {
            black_box(encode());
        });
        let decode_s = mean(|| {
            black_box(codec.decode(shape.clone(), sent.clone()).expect("just encoded"));
        });
        let (before, after) = (tensor.to_f32()?, codec.decode(shape, sent.clone())?.to_f32()?);
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
        };
        let error = norm(&mut before.iter().zip(&after).map(|(a, b)| a - b));
        let error = error / norm(&mut before.iter().copied()).max(f64::MIN_POSITIVE);
        let bytes = sent.len();
        let answer =
            json!({ "encode_s": encode_s, "decode_s": decode_s, "bytes": bytes, "error": error });
        println!("{answer}");
        stdout().flush()?;
    }
    Ok(())
}

/// Seconds of processor time that one call takes.
fn mean(mut call: impl FnMut()) -> f64 {
    call();
    let (begin, mut calls) = (processor_time(), 0u32);
    loop {
        call();
        calls += 1;
        let spent = processor_time() - begin;
        if spent >= LEAST {
            return spent.as_secs_f64() / f64::from(calls);
        }
    }
}

/// Of this thread: what other programs take meanwhile does not count.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that lives through the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "a thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
