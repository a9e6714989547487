//! The planner: its commands, and `split_point = "auto"` while the link changes under a running edge.

use std::fs;

use crate::nodes::{CONFIG, Nodes, PATIENCE, digits, eventually, split_point};

const STAGES: u64 = 6;

/// A network of long delays.
const FAR: &str = r#"
description = "far away"
sources = ["a test"]
[uplink]
rate_mbps = 100
delay_ms = 150
queue_ms = 500
[downlink]
rate_mbps = 100
delay_ms = 150
queue_ms = 500
"#;

/// An edge that is so slow that the cloud is worth a round trip, but not a long one.
fn config(link: &str) -> String {
    let auto = CONFIG
        .replace("split_point = 2", "split_point = \"auto\"")
        .replace("profile = \"none\"", &format!("profile = {link:?}"));
    format!("{auto}[edge]\ncompute_scale = 300.0\n[plan]\nprobe_interval_s = 1\n")
}

fn nodes(link: &str) -> Nodes {
    let nodes = Nodes::new(CONFIG);
    let links = nodes.path().join("config").join("links");
    fs::create_dir_all(&links).unwrap();
    fs::write(links.join("far.toml"), FAR).unwrap();
    nodes.write_config(&config(link));
    nodes
}

#[tokio::test]
async fn the_cut_follows_the_link_and_no_request_fails() {
    let mut nodes = nodes("none");
    nodes.start_cloud().await;
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 2);
    let first = nodes.infer(input.clone()).await.unwrap();
    let until = async |nodes: &Nodes, what: &str, wanted: fn(u64) -> bool| {
        let moved = eventually(what, async || {
            let reply = nodes.infer(input.clone()).await.expect("no request fails meanwhile");
            assert_eq!(reply.raw_output_contents, first.raw_output_contents);
            wanted(split_point(&reply)).then_some(())
        });
        moved.await.unwrap_or_else(|| panic!("{what}: {}", nodes.logs()));
    };
    let planned = |log: &str| log.matches("deployed").count();
    until(&nodes, "a plan with a near cloud", |split| split < STAGES).await;

    nodes.write_config(&config("far"));
    until(&nodes, "all on the edge", |split| split == STAGES).await;
    nodes.write_config(&config("none"));
    until(&nodes, "the near cloud again", |split| split < STAGES).await;
    let switches = planned(&fs::read_to_string(nodes.path().join("edge.log")).unwrap());
    assert!(switches <= 4, "{switches} deployments for 2 changes: {}", nodes.logs());

    // The whole model is at hand, and takes over.
    nodes.cloud = None;
    until(&nodes, "the edge alone", |split| split == STAGES).await;
    nodes.start_cloud().await;
    until(&nodes, "the cloud that is back", |split| split < STAGES).await;
}

#[tokio::test]
async fn an_answer_that_is_late_is_made_here() {
    let mut nodes = nodes("none");
    // Nothing but the edge's own impatience ends a call within the test.
    let patient = config("none").replace("[edge]", "[edge]\ndeadline_ms = 3600000");
    nodes.write_config(&patient);
    nodes.start_cloud().await;
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 2);
    let planned = eventually("a plan with a near cloud", async || {
        let reply = nodes.infer(input.clone()).await.expect("both nodes are there");
        (split_point(&reply) < STAGES).then_some(reply)
    });
    let first = planned.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    nodes.edge_says("the whole model is at hand").await;
    let cloud = nodes.cloud.as_ref().unwrap();
    cloud.signal("-STOP");
    let late = tokio::time::timeout(PATIENCE, nodes.infer(input)).await;
    cloud.signal("-CONT");
    let reply = late.unwrap_or_else(|_| panic!("{}", nodes.logs())).unwrap();
    assert_eq!(split_point(&reply), STAGES);
    assert_eq!(reply.raw_output_contents, first.raw_output_contents);
}

#[tokio::test]
async fn a_plan_explains_every_cut_and_measures_it() {
    let mut nodes = nodes("far");
    nodes.start_cloud().await;
    let output =
        nodes.edge_command(&["profile", "--rounds", "3", "--training", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let profile: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for side in ["edge", "cloud"] {
        let stages = profile[side]["stages"].as_array().unwrap();
        assert_eq!(stages.len() as u64, STAGES);
        for stage in stages {
            assert!(stage["forward"]["median_ms"].as_f64().unwrap() > 0.0);
            assert!(stage["training"]["backward"]["median_ms"].as_f64().unwrap() > 0.0);
        }
    }

    let svg = nodes.path().join("plan.svg");
    let picture = svg.display().to_string();
    let codecs = "plan.codecs=[\"f32\", \"int8\"]";
    let words = ["plan", "--set", codecs, "--rounds", "3", "--measure", "1", "--json", "--svg"];
    let output = nodes.edge_command(&[&words[..], &[&picture]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len() as u64, 2 * STAGES + 1);
    let chosen: Vec<_> = rows.iter().filter(|r| r["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    // 300 ms of round trip: nothing is worth it, as the real requests show too.
    assert_eq!(chosen[0]["split_point"], STAGES);
    let measured = |row: &serde_json::Value| row["measured_ms"].as_f64().unwrap();
    for row in rows.iter().filter(|r| r["split_point"] != STAGES) {
        assert!(measured(row) > 300.0 && row["total_ms"].as_f64().unwrap() > 300.0, "{row}");
        assert!(measured(row) > measured(chosen[0]));
    }
    assert!(fs::read_to_string(svg).unwrap().contains("<svg"));

    let floor = nodes
        .edge_command(&["plan", "--set", "plan.deadline_ms=0.001", "--rounds", "3"])
        .output()
        .unwrap();
    assert!(!floor.status.success());
    let said = String::from_utf8_lossy(&floor.stderr).to_string();
    assert!(said.contains("limits forbid every choice") && said.lines().count() <= 2, "{said}");

    let steps = nodes
        .edge_command(&["plan", "--training", "--batch", "4", "--rounds", "3", "--json"])
        .output()
        .unwrap();
    assert!(steps.status.success(), "{}", String::from_utf8_lossy(&steps.stderr));
    let steps: Vec<serde_json::Value> = serde_json::from_slice(&steps.stdout).unwrap();
    let ms = |i: usize| steps[i]["step_ms"].as_f64().unwrap();
    assert!(steps.len() == 15 && (1..15).all(|i| ms(i - 1) <= ms(i)), "{steps:?}");
}

#[tokio::test]
async fn a_graph_is_partitioned_or_refused() {
    let nodes = nodes("none");
    let file = nodes.path().join("graph.json");
    let graph = r#"{"nodes": [{"name": "a", "edge_ms": 1, "cloud_ms": 1}, {"name": "b", "edge_ms": 50, "cloud_ms": 2}],
        "tensors": [{"from": null, "to": [0], "uplink_ms": 30}, {"from": 0, "to": [1], "uplink_ms": 3}],
        "round_trip_ms": 10}"#;
    fs::write(&file, graph).unwrap();
    let path = file.display().to_string();
    let output = nodes.edge_command(&["plan", "--graph", &path, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found, serde_json::json!({"on_edge": [true, false], "total_ms": 16.0}));
    fs::write(&file, graph.replace("[1], \"uplink_ms\": 3", "[9], \"uplink_ms\": 3")).unwrap();
    let output = nodes.edge_command(&["plan", "--graph", &path]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(!output.status.success() && said.contains("there is no node 9"), "{said}");
}
