//! What the training of a long sequence keeps: its memory grows as the sequence does.

#![cfg(target_os = "linux")]

use std::process::Command;

use cleave_shared::{
    model::{
        Cell, LossKind, ModelSpec, OptimizerSpec, RnnSpec, SeededWeights, Segment, SequenceTask,
    },
    tensor::HostTensor,
};

const BATCH: usize = 16;
const HIDDEN: usize = 128;
const LENGTH: &str = "CLEAVE_TEST_LENGTH";

/// One step over sequences of as many positions as the environment says, in a process of its own,
/// whose peak memory is then this step's.
#[test]
#[ignore = "a part of memory_grows_as_the_sequence_does"]
fn one_step() {
    let length: usize = std::env::var(LENGTH).unwrap().parse().unwrap();
    let spec = ModelSpec::Rnn(RnnSpec {
        task: SequenceTask::LanguageModel,
        hidden: HIDDEN,
        layers: 1,
        classes: None,
        longest: length,
        ..RnnSpec::of_bytes(Cell::Lstm)
    });
    let count = spec.stage_count();
    let mut model = Segment::build(&spec, 0..count, &mut SeededWeights(1), true).unwrap();
    let ids: Vec<i64> = (0..BATCH * length).map(|i| i as i64 % 251).collect();
    let ids = HostTensor::from_i64(vec![BATCH, length], &ids);
    let (input, sgd) = (
        vec![("x".into(), ids.clone())],
        OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0 },
    );
    let step = model.tail_step(&input, &ids, LossKind::CrossEntropy, &sgd, false).unwrap();
    assert!(step.loss.is_finite());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    println!("peak {}", peak.trim());
}

/// Bytes at the peak of one step.
fn peak(length: usize) -> f64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["rnn_memory::one_step", "--exact", "--ignored", "--nocapture"]);
    let output = command.env(LENGTH, length.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let line = text.lines().find_map(|l| l.split("peak ").nth(1)).expect("the peak");
    1024.0 * line.strip_suffix(" kB").unwrap().parse::<f64>().unwrap()
}

#[test]
fn memory_grows_as_the_sequence_does() {
    let [short, long, longer] = [64, 256, 1024].map(peak);
    // What every position keeps, in numbers for each unit of its hidden state.
    let numbers = |more: f64, positions: usize| more / (4 * BATCH * HIDDEN * positions) as f64;
    let (first, then) = (numbers(long - short, 192), numbers(longer - long, 768));
    println!("{short:.2e} {long:.2e} {longer:.2e} bytes: {first:.1} and {then:.1} numbers a unit");
    assert!(then < 1.5 * first, "{first} numbers a unit at first, then {then}");
    assert!(then < 80.0, "{then} numbers a unit");
}
