//! What a run leaves for people to watch: TensorBoard's files, and the page.

use std::{fs, path::Path, process::Command};

use crate::nodes::{CONFIG, Nodes, eventually};

fn python(script: &str, words: &[&Path]) {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python").join(script);
    let output = Command::new(python).arg(script).args(words).output().expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}", text(&output.stdout));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Lines of the run's metrics.
fn lines(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count()
}

/// The edge is killed on the way, so that steps are taken twice, and the cloud as well, so that a
/// process goes back; all that is read afterwards has every step once.
#[tokio::test]
async fn an_interrupted_run_is_shown_as_one() {
    let mut nodes = Nodes::new(&CONFIG.replace("profile = \"none\"", "profile = \"5g-mmwave\""));
    nodes.start_cloud().await;
    let run = nodes.runs().join("edge").join("a");
    let reaches = async |count: usize| {
        let there = async || (lines(&run) >= count).then_some(());
        eventually("the run's progress", there).await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    };
    let training = nodes.launch_training(&["--run", "a"]);
    reaches(47).await;
    drop(training);
    let training = nodes.launch_training(&["--resume"]);
    reaches(75).await;
    nodes.cloud = None;
    fs::remove_dir_all(nodes.runs().join("cloud").join("a").join("step-00000070")).unwrap();
    nodes.start_cloud().await;
    nodes.finishes(training).await;
    assert!(nodes.logs().contains("going back to step"), "{}", nodes.logs());
    assert_eq!(lines(&run), 123, "three epochs of 40 steps, each with a validation");

    python("tensorboard_values.py", &[&run]);
    let events = fs::read_dir(&run).unwrap().flatten();
    let events = events.filter(|e| e.file_name().to_string_lossy().starts_with("events.out"));
    assert_eq!(events.count(), 2, "a file for each process");

    let (page, trace) = (nodes.path().join("page.html"), nodes.path().join("trace.json"));
    let mut words = vec!["report", "a", "--output", page.to_str().unwrap()];
    if run.join("timeline.jsonl").exists() {
        words.extend(["--trace", trace.to_str().unwrap()]);
    }
    let report = nodes.edge_command(&words).output().unwrap();
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    python("run_page.py", &[&run, &page, &trace]);
}
