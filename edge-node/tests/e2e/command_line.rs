//! What the `edge-node` command says to mistakes, and what the demo prints.

use std::{fs, process::Output};

use crate::nodes::{CONFIG, Nodes};

fn failure(output: Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn mistakes_are_one_line_and_a_failing_exit() {
    let nodes = Nodes::new("[edge]\nclod = \"http://x:1\"\n");
    let text = failure(nodes.edge_command(&["serve"]).output().unwrap(), 2);
    assert!(text.contains("cleave.toml: edge.clod: unknown key; known here: cloud"), "{text}");

    nodes.write_config(CONFIG);
    let mut command = nodes.edge_command(&["serve"]);
    let output = command.env("CLEAVE_EDGE__THREADS", "0").output().unwrap();
    let text = failure(output, 2);
    assert!(text.contains("environment: edge.threads: 0 is out of range"), "{text}");
    let mut command = nodes.edge_command(&["serve", "--split-point", "9"]);
    let text = failure(command.output().unwrap(), 2);
    assert!(text.contains("split_point: 9 is out of range; allowed: 0 to 6"), "{text}");

    let text = failure(nodes.edge_command(&["health"]).output().unwrap(), 1);
    assert!(text.contains("does not answer"), "{text}");
    let text = failure(nodes.edge_command(&["evaluate"]).output().unwrap(), 1);
    assert!(text.contains("no edge node answers at"), "{text}");
    let text = failure(nodes.edge_command(&["train", "--resume"]).output().unwrap(), 1);
    assert!(text.contains("there is no run in"), "{text}");
    let text = failure(nodes.edge_command(&["train", "--run", "../x"]).output().unwrap(), 1);
    assert!(text.contains("is not a run id"), "{text}");
}

#[test]
fn a_cloud_that_never_comes_ends_training_with_a_way_on() {
    let config = CONFIG.replace("reconnect_timeout_s = 30", "reconnect_timeout_s = 1");
    let nodes = Nodes::new(&config);
    let output = nodes.edge_command(&["train", "--run", "a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.contains("does not answer") && last.contains("--resume --run a"), "{text}");
}

#[test]
fn the_demo_trains_across_5g_and_reports_98_percent() {
    // The configuration that users get, but for addresses and folders.
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/cleave.toml");
    let nodes = Nodes::new(&fs::read_to_string(shipped).unwrap());
    let output = nodes.edge_command(&["demo", "--exit"]).output().unwrap();
    let (text, log) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let text = text.unwrap();
    assert!(output.status.success(), "{text}\n{}", log.unwrap());
    println!("{text}");
    let line = text.lines().find_map(|l| l.strip_prefix("test accuracy ")).expect("an accuracy");
    let accuracy: f64 = line.split(' ').next().unwrap().parse().unwrap();
    assert!(accuracy >= 98.0, "{line}");
    assert!(line.ends_with("/360)"), "{line}");
    assert!(text.contains("across 5g-midband") && text.contains("uplink"), "{text}");
}
