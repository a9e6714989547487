//! What the `edge-node` command says to mistakes, and what the demo prints.

use std::{fs, process::Output};

use serde_json::json;

use crate::nodes::{CONFIG, Nodes, eventually, output};

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

#[test]
fn the_demo_reports_to_programs_as_one_json_object() {
    let nodes = Nodes::new(CONFIG);
    let output = nodes.edge_command(&["demo", "--exit", "--json"]).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    // It would not be one if anything else stood there.
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["model"], "lenet");
    assert_eq!((&report["stages"], &report["split_point"]), (&json!(6), &json!(2)));
    assert_eq!(report["link"], "none");
    let training = &report["training"];
    assert_eq!(training["steps"], training["validation"]["step"]);
    assert!(training["uplink_bytes"].as_u64() > Some(0), "{report}");
    let evaluation = &report["evaluation"];
    assert_eq!((&evaluation["samples"], &evaluation["split_point"]), (&json!(360), &json!(2)));
    assert!(evaluation["correct"].as_u64() > Some(180), "{report}");
    assert!(evaluation["latency_ms"]["total_ms"]["p50"].as_f64() > Some(0.0), "{report}");
    assert!(log.contains("training lenet split at 2 of 6 across none"), "{log}");
}

#[tokio::test]
async fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let mut nodes = Nodes::new(CONFIG);
    let found = |output: Output| -> (Option<i32>, Vec<serde_json::Value>) {
        (output.status.code(), serde_json::from_slice(&output.stdout).expect("a JSON list"))
    };
    let about = |findings: &[serde_json::Value], check: &str| -> Vec<(String, String)> {
        let text = |f: &serde_json::Value, key: &str| f[key].as_str().unwrap_or("").to_string();
        let those = findings.iter().filter(|f| f["check"] == check);
        those.map(|f| (text(f, "verdict"), text(f, "found"))).collect()
    };
    // No cloud is there yet; everything else is as it should be.
    let (code, findings) = found(output(nodes.edge_command(&["doctor", "--json"])).await);
    assert_eq!(code, Some(1), "{findings:?}");
    let cloud = about(&findings, "cloud");
    assert!(cloud[0].0 == "error" && cloud[0].1.contains("does not answer"), "{cloud:?}");
    assert_eq!(about(&findings, "weights")[0].0, "warning");
    let ports = about(&findings, "port");
    assert!(ports.iter().all(|(v, f)| v == "ok" && f.contains("is free")), "{ports:?}");

    nodes.start_cloud().await;
    nodes.start_edge().await;
    let (code, findings) = found(output(nodes.edge_command(&["doctor", "--json"])).await);
    assert_eq!(code, Some(0), "{findings:?}");
    let cloud = about(&findings, "cloud");
    assert!(cloud[0].0 == "ok" && cloud[0].1.contains("agrees, RTT"), "{cloud:?}");
    assert_eq!(about(&findings, "cloud's clock")[0].0, "ok");
    assert_eq!(about(&findings, "cloud's version")[0].1, env!("CARGO_PKG_VERSION"));
    let ports = about(&findings, "port");
    assert!(ports.iter().all(|(_, f)| f.ends_with("an edge serves there")), "{ports:?}");
    let (code, findings) = found(output(nodes.cloud_command(&["doctor", "--json"])).await);
    assert_eq!(code, Some(0), "{findings:?}");
    assert!(about(&findings, "port")[0].1.ends_with("a cloud serves there"), "{findings:?}");

    // A bad key is a finding, too, and the text says where it is.
    nodes.write_config("[edge]\nclod = \"http://x:1\"\n");
    let told = output(nodes.edge_command(&["doctor"])).await;
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(text.starts_with("ERROR    configuration"), "{text}");
}

#[test]
fn shells_and_man_know_the_commands() {
    let nodes = Nodes::new(CONFIG);
    let folder = nodes.path().join("man1");
    for (command, name, sub) in [
        (Nodes::edge_command as fn(&Nodes, &[&str]) -> _, "edge-node", "serve"),
        (Nodes::cloud_command, "cloud-node", "doctor"),
    ] {
        for shell in ["bash", "zsh", "fish"] {
            let output = command(&nodes, &["completions", shell]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(name) && text.contains(sub), "{shell}: {text}");
        }
        let output = command(&nodes, &["man", folder.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success());
        let page = fs::read_to_string(folder.join(format!("{name}-{sub}.1"))).unwrap();
        assert!(page.contains(".SH OPTIONS"), "{page}");
    }
}

#[tokio::test]
async fn another_log_level_is_taken_into_force_while_both_nodes_serve() {
    let config = |level: &str| format!("{CONFIG}\n[log]\nlevel = \"{level}\"\n");
    let nodes = Nodes::start(&config("warn")).await;
    let log = |node: &str| fs::read_to_string(nodes.path().join(format!("{node}.log"))).unwrap();
    assert_eq!((log("edge"), log("cloud")), (String::new(), String::new()));
    nodes.write_config(&config("debug"));
    for node in ["edge", "cloud"] {
        let words = "log level changed";
        let seen = eventually(words, async || log(node).contains(words).then_some(())).await;
        assert!(seen.is_some(), "{}", nodes.logs());
        assert!(!log(node).contains('\x1b'), "no colours in a file");
    }
    // A level that is none is complained of, and the one in force stays.
    nodes.write_config(&config("debgu"));
    nodes.edge_says("log.level: \"debgu\": expected off, error").await;
}
