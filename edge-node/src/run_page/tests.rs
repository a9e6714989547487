//! The page and the trace of a recorded run, read by others.

use std::{fs, path::Path, process::Command};

use cleave_shared::config::Config;

use super::*;
use crate::train::{Lane, Score, Span, Timeline};

const RUN: &str = "run-1";

/// Two processes of a run with pipelined steps, the second of which began again after step 30.
fn record(config: &Config) {
    let dir = config.runs.dir.join("edge").join(RUN);
    fs::create_dir_all(&dir).unwrap();
    let record = RunRecord::new(config, None);
    fs::write(dir.join("run.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    let mut lines = Vec::new();
    for (first, last) in [(1, 30), (31, 60)] {
        let mut timeline = Timeline::open(&dir, first - 1).unwrap();
        for step in first..=last {
            let begin = (step - first) as f64 * 40.0;
            pipelined(step, begin).into_iter().for_each(|span| timeline.add(span));
            let overlap = timeline.end(step).unwrap();
            lines.push(Line::Step(stepped(step, step - first + 1, overlap)));
            if step.is_multiple_of(20) {
                let score = Score { accuracy: Some(0.8), ..Score::default() };
                lines.push(Line::Validation(Validated {
                    step,
                    epoch: step / 20,
                    loss: 0.7,
                    score,
                }));
            }
        }
    }
    let text: String =
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    fs::write(dir.join("metrics.jsonl"), text).unwrap();
}

/// Four micro-batches, of which two are on the way up at a time.
fn pipelined(step: u64, begin: f64) -> Vec<Span> {
    let parts = [
        (Lane::HeadForward, 0.0, 2.0),
        (Lane::Uplink, 2.0, 5.0),
        (Lane::Tail, 7.0, 1.5),
        (Lane::Downlink, 8.5, 2.5),
        (Lane::HeadBackward, 11.0, 2.0),
    ];
    let of_one = |micro_batch: u32| {
        let begin = begin + f64::from(micro_batch) * 2.5;
        parts.map(|(lane, after, length)| {
            let start_ms = begin + after;
            Span { step, micro_batch, lane, start_ms, end_ms: start_ms + length }
        })
    };
    (0..4).flat_map(of_one).collect()
}

fn stepped(step: u64, of_process: u64, overlap: Option<f64>) -> Stepped {
    Stepped {
        step,
        epoch: (step - 1) / 20 + 1,
        loss: 2.0 / step as f32,
        score: Score { accuracy: Some(1.0 - 0.9 / step as f64), ..Score::default() },
        head_ms: 4.0,
        link_ms: 7.5,
        tail_ms: 1.5,
        step_ms: 20.0 + step as f64 / 10.0,
        overlap,
        micro_batches: 4,
        learning_rate: 0.1 / step as f64,
        gradient_norm: None,
        uplink_bytes: of_process * (1 << 20),
        downlink_bytes: of_process * (1 << 19),
    }
}

fn recorded(dir: &Path) -> Config {
    let mut config = Config::default();
    config.runs.dir = dir.to_path_buf();
    record(&config);
    config
}

fn options(step: Option<u64>) -> Options {
    Options { run: RUN.into(), step, ..Options::default() }
}

#[test]
fn the_page_and_the_trace_are_what_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let config = recorded(dir.path());
    let trace = dir.path().join("trace.json");
    let files = write(&config, &Options { trace: Some(trace), ..options(None) }).unwrap();
    let run = dir.path().join("edge").join(RUN);
    assert_eq!(files[0], run.join("report.html"));
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/run_page.py");
    let output = Command::new(python).arg(script).arg(&run).args(&files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Each process counted its bytes from 0: 30 and 30 MiB, not the 30 of the last line.
    let page = fs::read_to_string(&files[0]).unwrap();
    assert!(page.contains("<dd>60.00 MiB</dd>") && page.contains("<dd>30.00 MiB</dd>"));
}

#[test]
fn a_step_is_chosen_for_page_and_trace() {
    let dir = tempfile::tempdir().unwrap();
    let config = recorded(dir.path());
    let trace = dir.path().join("trace.json");
    let chosen = Options { trace: Some(trace.clone()), ..options(Some(17)) };
    let files = write(&config, &chosen).unwrap();
    assert!(fs::read_to_string(&files[0]).unwrap().contains("Timeline of step 17"));
    let trace: serde_json::Value = serde_json::from_slice(&fs::read(trace).unwrap()).unwrap();
    let spans = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X");
    assert_eq!(spans.count(), 1 + 20);
}

#[test]
fn what_cannot_be_shown_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let config = recorded(dir.path());
    let refused = |options: &Options| write(&config, options).unwrap_err();
    let unknown = refused(&Options { run: "run-2".into(), ..Options::default() });
    assert!(unknown.starts_with("run run-2 is not in "), "{unknown}");
    let step = refused(&options(Some(75)));
    assert_eq!(step, "--step: step 75 was not recorded; the nearest is 60");
    let run = dir.path().join("edge").join(RUN);
    fs::remove_file(run.join("timeline.jsonl")).unwrap();
    let trace = refused(&Options { trace: Some(dir.path().join("t")), ..options(None) });
    assert_eq!(trace, "--trace: run run-1 has no timeline");
    assert!(!run.join("report.html").exists(), "nothing is written if not all can be");
    write(&config, &options(None)).unwrap();
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    assert!(refused(&options(None)).starts_with("run run-1 has no steps in "));
}
