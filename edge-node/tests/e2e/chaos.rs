//! Two hundred faults in one run: whatever breaks, the weights are those of a run that nobody disturbed, bit
//! for bit.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    faulty_link::{Faults, FaultyLink},
    nodes::{CONFIG, Nodes, Process, eventually},
};

const SEED: u64 = 5;
/// 20 epochs of 25 steps: 1,258 samples, 51 a batch.
const STEPS: u64 = 500;
const FRAME_FAULTS: u32 = 150;
/// A step has five frames or more: the last fault comes well before the end.
const FRAMES_APART: u32 = 12;
const KILLS_OF_EACH: usize = 20;
const FULL_DISKS: usize = 10;
/// Room for a whole run, and little more.
const DISK_MIB: u32 = 24;

/// All that makes a step: momentum, a norm over both halves, a rate that changes, micro-batches, and codecs that
/// round, draw, and keep what they left out.
fn config() -> String {
    let train = "[train]\nepochs = 20\nbatch_size = 51\nmicro_batches = 2\nclip_norm = 1.0\n\
                 checkpoint_every = 10\nstep_timeout_s = 1\nreconnect_timeout_s = 60\n\
                 schedule = { kind = \"cosine\", warmup_steps = 20, floor = 0.01 }\n";
    let (before, rest) = CONFIG.split_once("[train]\n").unwrap();
    let (_, optimizer) = rest.split_once("[train.optimizer]").unwrap();
    let codec = "[codec]\nactivation = \"int8\"\ngradient = \"topk:0.25+zstd\"\n";
    format!("{before}{train}[train.optimizer]{optimizer}{codec}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    EdgeKilled,
    CloudKilled,
    DiskFull,
}

/// A disk of its own for the runs; gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={DISK_MIB}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.into()))
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        for block in [vec![0u8; 1 << 16], vec![0u8; 64], vec![0u8; 1]] {
            while filler.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        let _ = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The run, and what is done to it.
struct Chaos {
    nodes: Nodes,
    training: Option<Process>,
    /// Where the edge believes the cloud to be.
    address: String,
}

impl Chaos {
    fn launch(&mut self, resume: bool) {
        let mut words = vec!["--run", "a", "--cloud", &self.address];
        words.extend(resume.then_some("--resume"));
        self.training = Some(self.nodes.launch_training(&words));
    }

    /// The last step in the metrics.
    fn step(&self) -> u64 {
        let path = self.nodes.runs().join("edge/a/metrics.jsonl");
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().rev().map(serde_json::from_str::<serde_json::Value>);
        lines.flatten().find_map(|line| line["step"].as_u64()).unwrap_or(0)
    }

    /// Every step in the metrics, in their order.
    fn noted(&self) -> Vec<u64> {
        let path = self.nodes.runs().join("edge/a/metrics.jsonl");
        let text = fs::read_to_string(path).unwrap();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .filter(|line| line["kind"] == "step")
            .filter_map(|line| line["step"].as_u64())
            .collect()
    }

    /// Whether the edge ended by itself.
    fn ended(&mut self) -> Option<bool> {
        let training = self.training.as_mut()?;
        training.0.try_wait().unwrap().map(|status| status.success())
    }

    async fn reaches(&mut self, step: u64) {
        let begin = std::time::Instant::now();
        while self.step() < step {
            assert_ne!(self.ended(), Some(false), "the edge gave up: {}", self.nodes.logs());
            assert!(begin.elapsed().as_secs() < 120, "stuck: {}", self.nodes.logs());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    async fn suffer(&mut self, fault: Fault, disk: Option<&SmallDisk>) {
        match fault {
            Fault::EdgeKilled => {
                self.training = None;
                self.launch(true);
            }
            Fault::CloudKilled => {
                self.nodes.cloud = None;
                self.nodes.start_cloud().await;
            }
            Fault::DiskFull => self.fill_disk(disk.expect("only drawn with a disk")).await,
        }
    }

    /// Until a checkpoint failed, or the edge could not even write its metrics.
    async fn fill_disk(&mut self, disk: &SmallDisk) {
        let failures = |chaos: &Self| chaos.nodes.logs().matches("was not written").count();
        let before = failures(self);
        disk.fill();
        let begin = std::time::Instant::now();
        while self.ended().is_none() && failures(self) == before {
            assert!(begin.elapsed().as_secs() < 60, "a full disk: {}", self.nodes.logs());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        disk.free();
        // It may have met the full disk just now, and not ended yet; two more steps, and it has not.
        let survived = self.step() + 2;
        while self.ended().is_none() && self.step() < survived {
            assert!(begin.elapsed().as_secs() < 120, "a free disk: {}", self.nodes.logs());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        if self.ended().is_some() {
            let log = self.nodes.logs();
            assert!(log.contains("No space left on device"), "{log}");
            self.launch(true);
        }
    }
}

/// The weights of the last checkpoint of both halves, by file. They are what 500 steps of an optimiser with
/// momentum made of them: a wrong state of it anywhere on the way would be seen here.
fn final_weights(nodes: &Nodes) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for node in ["edge", "cloud"] {
        let dir = nodes.runs().join(node).join("a").join(format!("step-{STEPS:08}"));
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for entry in entries.flatten() {
            let name = format!("{node}/{}", entry.file_name().display());
            if name.ends_with(".safetensors") {
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    // Of six stages, and of what the cloud's codec left out.
    assert_eq!(files.len(), 7, "{:?}", files.keys());
    files
}

async fn undisturbed() -> BTreeMap<String, Vec<u8>> {
    let mut nodes = Nodes::new(&config());
    nodes.start_cloud().await;
    nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
    final_weights(&nodes)
}

#[tokio::test]
async fn two_hundred_faults_change_no_bit() {
    let expected = undisturbed().await;
    let mut nodes = Nodes::new(&config());
    let disk = SmallDisk::mount(&nodes.runs());
    if disk.is_none() {
        eprintln!("!!! no tmpfs can be mounted: the disk is never full in this run of the test");
    }
    let mut faults = vec![Fault::EdgeKilled; KILLS_OF_EACH];
    faults.extend([Fault::CloudKilled; KILLS_OF_EACH]);
    // Without a small disk, more processes are killed instead.
    let last = if disk.is_some() { Fault::DiskFull } else { Fault::CloudKilled };
    faults.extend([last; FULL_DISKS]);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    faults.shuffle(&mut rng);

    nodes.start_cloud().await;
    let frames = Faults::new(SEED, FRAMES_APART, FRAME_FAULTS);
    let port = FaultyLink::start(nodes.cloud_port, Arc::clone(&frames)).await;
    let address = format!("http://127.0.0.1:{port}");
    let mut chaos = Chaos { nodes, training: None, address };
    chaos.launch(false);
    let apart = (STEPS - 20) / faults.len() as u64;
    for (i, &fault) in faults.iter().enumerate() {
        let step = i as u64 * apart + rng.random_range(1..=apart);
        chaos.reaches(step).await;
        chaos.suffer(fault, disk.as_ref()).await;
    }
    let ended = eventually("the end of the run", async || (chaos.step() == STEPS).then_some(()));
    ended.await.unwrap_or_else(|| panic!("{}", chaos.nodes.logs()));
    let training = chaos.training.take().unwrap();
    chaos.nodes.finishes(training).await;

    let counts = frames.counts();
    println!("frames: {counts:?}; processes and disks: {}", faults.len());
    assert_eq!(counts.values().sum::<u32>() + faults.len() as u32, 200);
    assert_eq!(chaos.noted(), (1..=STEPS).collect::<Vec<_>>(), "steps, as the metrics have them");
    let found = final_weights(&chaos.nodes);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &found {
        assert!(*bytes == expected[name], "{name} differs from the undisturbed run's");
    }
}
