//! Groups whose edges are processes of their own: they come late, leave, are too slow, and the cloud
//! fails; and what many edges take.

use std::{collections::BTreeSet, fs, time::Duration};

use cleave_shared::{
    checkpoint::RunStore,
    data::{Batch, BatchPlan, Part, gather},
    model::{LoadedWeights, Segment},
};

use crate::{
    nodes::{Nodes, Process, eventually},
    topologies::{LOCAL_STEPS, Losses, SGD, group, losses, losses_of},
};

/// 12 ms round trip, so that a run takes long enough to be disturbed.
fn slow(config: String) -> String {
    config.replace("profile = \"none\"", "profile = \"5g-mmwave\"")
}

fn rounds(config: String, rounds: u64) -> String {
    config.replace("epochs = 6", &format!("epochs = {rounds}"))
}

/// Starts edge `edge` of run `a`.
fn launch(nodes: &Nodes, edge: usize) -> Process {
    let number = edge.to_string();
    nodes.launch(&["train", "--run", "a", "--edge", &number, "--no-deploy"], "train.log")
}

fn losses_of_edge(nodes: &Nodes, edge: usize) -> Losses {
    losses_of(&nodes.runs().join("edge").join("a").join(format!("edge-{edge}.jsonl")))
}

/// Rounds in which an edge took steps.
fn rounds_of(nodes: &Nodes, edge: usize) -> BTreeSet<u64> {
    losses_of_edge(nodes, edge).into_keys().map(|(round, _, _)| round).collect()
}

async fn reaches(nodes: &Nodes, edge: usize, round: u64) {
    let there = async || rounds_of(nodes, edge).last().filter(|r| **r >= round).map(|_| ());
    eventually("the group's progress", there).await.unwrap_or_else(|| panic!("{}", nodes.logs()));
}

#[tokio::test]
async fn edges_in_processes_of_their_own_are_the_same_group() {
    let config = group("splitfed-v1", SGD, "");
    let mut nodes = Nodes::new(&config);
    nodes.start_cloud().await;
    nodes.finishes(nodes.launch_training(&["--run", "b"])).await;
    let expected = losses(&nodes, "b");
    assert_eq!(expected.len(), 3 * 6 * 5);
    let edges = [2, 0, 1].map(|edge| launch(&nodes, edge));
    for edge in edges {
        nodes.finishes(edge).await;
    }
    let found: Losses = (0..3).flat_map(|edge| losses_of_edge(&nodes, edge)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_cloud_killed_within_a_round_costs_that_round_only() {
    for kind in ["sequential", "parallel"] {
        let config = slow(group(kind, SGD, ""));
        let mut nodes = Nodes::new(&config);
        nodes.start_cloud().await;
        nodes.finishes(nodes.launch_training(&["--run", "b"])).await;
        let training = nodes.launch_training(&["--run", "a"]);
        let there = async || losses(&nodes, "a").contains_key(&(3, 1, 3)).then_some(());
        let seen = eventually("the third round", there).await;
        seen.unwrap_or_else(|| panic!("{}", nodes.logs()));
        nodes.cloud = None;
        nodes.start_cloud().await;
        nodes.finishes(training).await;
        assert_eq!(losses(&nodes, "a"), losses(&nodes, "b"), "{kind}");
    }
}

#[tokio::test]
async fn an_edge_may_leave_and_come_back() {
    for kind in ["splitfed-v1", "sequential"] {
        let config = group(kind, SGD, "").replace("epochs =", "keep_checkpoints = 100\nepochs =");
        let mut nodes = Nodes::new(&rounds(slow(config), 40));
        nodes.start_cloud().await;
        let edges = [0, 1].map(|edge| launch(&nodes, edge));
        let leaver = launch(&nodes, 2);
        reaches(&nodes, 2, 3).await;
        drop(leaver);
        let left = *rounds_of(&nodes, 2).last().unwrap();
        reaches(&nodes, 0, left + 10).await;
        nodes.finishes(launch(&nodes, 2)).await;
        for edge in edges {
            nodes.finishes(edge).await;
        }
        let taken = rounds_of(&nodes, 2);
        assert!(!taken.contains(&(left + 1)) && taken.contains(&40), "{kind}: {taken:?}");
        assert_eq!(rounds_of(&nodes, 0), (1..=40).collect(), "{kind}");
        let back = *taken.range(left + 1..).next().unwrap();
        // It came back to what the others had learned meanwhile. (In `sequential` they go first.)
        if kind == "splitfed-v1" {
            let found = losses_of_edge(&nodes, 2)[&(back, 2, 1)];
            let expected = loss_after(&nodes, back - 1, 2, (back - 1) * LOCAL_STEPS + 1);
            assert!((found - expected).abs() < 1e-5, "round {back}: {found} {expected}");
        }
    }
}

/// What the group's model after a round loses on the batch of an edge's step.
fn loss_after(nodes: &Nodes, round: u64, edge: usize, step: u64) -> f64 {
    let config = nodes.config();
    let store = RunStore::new(nodes.runs().join("cloud"));
    let stages = config.model.stage_names();
    let read = |stage: &String| store.read("a", round, stage).unwrap().weights;
    let mut weights = LoadedWeights::new(stages.iter().flat_map(read).collect());
    let whole = Segment::build(&config.model, 0..stages.len(), &mut weights, false).unwrap();
    let dataset = config.data.open().unwrap();
    let split = dataset.split(config.seed);
    let (topology, train) = (&config.train.topology, split.indices(Part::Train));
    let parts = topology.partition().deal(dataset.as_ref(), train, topology.edges, config.seed);
    let part = parts.unwrap().swap_remove(edge);
    let plan = BatchPlan::new(part, config.train.batch_size, config.seed).unwrap();
    let Batch { inputs, labels } = gather(dataset.as_ref(), &plan.batch(step));
    f64::from(whole.evaluate(&inputs, &labels, config.train.loss).unwrap().0)
}

#[tokio::test]
async fn a_straggler_is_left_out() {
    for kind in ["splitfed-v1", "splitfed-v2", "parallel"] {
        let config = rounds(slow(group(kind, SGD, "deadline_s = 5")), 25);
        let mut nodes = Nodes::new(&config);
        nodes.start_cloud().await;
        let edges = [0, 1].map(|edge| launch(&nodes, edge));
        let slow = launch(&nodes, 2);
        reaches(&nodes, 2, 2).await;
        slow.signal("-STOP");
        for edge in edges {
            nodes.finishes(edge).await;
        }
        let stopped = *rounds_of(&nodes, 2).last().unwrap();
        let after = rounds_of(&nodes, 0).split_off(&(stopped + 1));
        assert_eq!(after, (stopped + 1..=25).collect(), "{kind}");
        assert!(after.len() > 10, "{kind}: {after:?}");
        // It hears at last that all is over.
        slow.signal("-CONT");
        nodes.finishes(slow).await;
        assert_eq!(rounds_of(&nodes, 2).last(), Some(&stopped), "{kind}");
    }
}

#[tokio::test]
async fn a_share_of_the_edges_takes_part() {
    let config = group("splitfed-v1", SGD, "participation = 0.5\nat_once = 1");
    let mut nodes = Nodes::new(&config.replace("edges = 3", "edges = 6"));
    nodes.start_cloud().await;
    nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
    let steps: BTreeSet<(u64, u64)> =
        losses(&nodes, "a").into_keys().map(|(round, edge, _)| (round, edge)).collect();
    let of = |round| steps.iter().filter(move |s| s.0 == round).map(|s| s.1).collect::<Vec<_>>();
    assert!((1..=6).all(|round| of(round).len() == 3), "{steps:?}");
    assert!((2..=6).any(|round| of(round) != of(1)), "{steps:?}");
    // What was learned is served.
    let output = nodes.edge_command(&["validate", "--run", "a"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("accuracy"), "{text} {}", nodes.logs());
}

#[tokio::test]
async fn members_that_differ_are_refused() {
    let mut nodes = Nodes::new(&rounds(slow(group("splitfed-v1", SGD, "")), 1000));
    nodes.start_cloud().await;
    let _edges = [0, 1, 2].map(|edge| launch(&nodes, edge));
    reaches(&nodes, 0, 1).await;
    let refused = |words: &[&str]| {
        let words = [&["train", "--run", "a"], words].concat();
        let output = nodes.edge_command(&words).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(&["--edge", "3"]);
    assert!(text.contains("--edge 3: train.topology.edges is 3"), "{text}");
    let text = refused(&["--edge", "0", "--set", "train.topology.alpha=0.1"]);
    assert!(text.contains("another configuration: topology"), "{text}");
    let text = refused(&["--edge", "0", "--set", "train.epochs=7"]);
    assert!(text.contains("train.epochs: edge has 7, the group has 1000"), "{text}");
    let text = refused(&["--set", "train.clip_norm=1.0"]);
    assert!(text.contains("train.clip_norm"), "{text}");
}

/// Peak of resident memory, MiB.
fn peak(process: &Process) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id()));
    let line =
        status.unwrap_or_default().lines().find(|l| l.starts_with("VmHWM")).map(str::to_owned);
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Peaks of edge process and cloud over one round of so many edges.
async fn peaks(edges: usize, at_once: usize) -> (f64, f64) {
    let extra = format!("at_once = {at_once}");
    let config = rounds(group("splitfed-v1", SGD, &extra), 2)
        .replace("family = \"lenet\"", "family = \"mlp\"")
        .replace("channels = [4, 8]\nhidden = [16]", "hidden = [1024, 1024, 1024]")
        .replace("edges = 3", &format!("edges = {edges}\nleast_samples = 2"))
        .replace("partition = \"dirichlet\"", "partition = \"iid\"")
        .replace("local_steps = 5", "local_steps = 1");
    let mut nodes = Nodes::new(&config);
    nodes.start_cloud().await;
    let mut training = nodes.launch_training(&["--run", "a", "--no-deploy"]);
    let mut edge = 0.0f64;
    let status = loop {
        edge = edge.max(peak(&training));
        if let Some(status) = training.0.try_wait().unwrap() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(status.success(), "{}", nodes.logs());
    assert_eq!(losses(&nodes, "a").len(), 2 * edges);
    (edge, peak(nodes.cloud.as_ref().unwrap()))
}

#[tokio::test]
async fn many_edges_take_the_memory_of_those_whose_turn_it_is() {
    let few = peaks(8, 4).await;
    let many = peaks(64, 4).await;
    let all = peaks(64, 64).await;
    println!(
        "MiB of edge process and cloud: 8 edges {few:.0?}, 64 edges {many:.0?}, all at once {all:.0?}"
    );
    // A turn takes 12 MiB and more on either side here, an idle member less than 4: gRPC's buffers of a
    // chunk, whatever the size of the model.
    let idle = 56.0 * 4.0;
    assert!(many.0 < few.0 + idle && many.1 < few.1 + idle, "{few:?} {many:?}");
    assert!(all.0 > many.0 + idle && all.1 > many.1 + idle, "{many:?} {all:?}");
}
