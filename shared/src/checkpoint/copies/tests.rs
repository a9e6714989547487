//! A node's checkpoints in a folder and in a bucket of a server that speaks S3 (moto, from PyPI).

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{checkpoint::RunStore, model::StageState, tensor::HostTensor};

/// The server, which ends with the test and forgets all.
struct S3 {
    process: Child,
    port: u16,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl S3 {
    /// With an empty bucket; port 0 is any.
    fn start(port: u16) -> Self {
        let python = std::env::var("CLEAVE_TEST_PYTHON")
            .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/s3_server.py");
        let mut command = Command::new(python);
        command.arg(script).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        Self { process, port: line.trim().parse().expect("the server's port") }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A store on this disk with copies at `url`; the port is where S3 is spoken.
fn open(disk: &Path, url: &str, port: u16) -> RunStore {
    let variables = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "somebody".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_REGION", "eu-central-1".into()),
        ("PATH", "is not read".into()),
    ];
    let variables = variables.map(|(name, value)| (name.to_string(), value));
    RunStore::with_copies(disk, "edge", url, variables.into_iter()).unwrap()
}

fn state(stage: &str, value: f32, count: usize) -> StageState {
    let tensor = HostTensor::from_f32(vec![count], &vec![value; count]);
    StageState {
        stage: stage.into(),
        weights: vec![(format!("{stage}.weight"), tensor)],
        optimizer: vec![1, 2, 3],
    }
}

fn write(store: &RunStore, step: u64) {
    store.write("a", step, &[state("conv1", step as f32, 2), state("fc1", 0.5, 3)]).unwrap();
}

/// What must hold of any place.
fn another_machine_goes_on(url: &str, port: u16) {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(first.path(), url, port);
    store.write_file("a", "run.json", b"{}").unwrap();
    [10, 20, 30].into_iter().for_each(|step| write(&store, step));
    store.retain("a", 2, &store.steps("a")).unwrap();

    let other = open(second.path(), url, port);
    assert_eq!(other.steps("a"), [20, 30].into());
    let files = other.read("a", 20, "conv1").unwrap();
    assert_eq!(files.weights, state("conv1", 20.0, 2).weights);
    assert_eq!(files.optimizer, [1, 2, 3]);
    assert_eq!(other.stages("a", 30).unwrap(), ["conv1".into(), "fc1".into()].into());
    other.fetch_file("a", "run.json").unwrap();
    let run = second.path().join("edge").join("a");
    assert_eq!(fs::read(run.join("run.json")).unwrap(), b"{}");
    other.fetch_file("b", "run.json").unwrap();
    assert!(!second.path().join("edge").join("b").exists());
    let left: Vec<_> = fs::read_dir(&run).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "nothing temporary stays: {left:?}");

    // It is the run's machine now: what it takes back is taken back there, too.
    other.drop_after("a", 20).unwrap();
    assert_eq!((other.steps("a"), store.steps("b")), ([20].into(), [].into()));
    assert!(other.read("a", 30, "conv1").is_err());
    write(&other, 25);
    let third = tempfile::tempdir().unwrap();
    assert_eq!(open(third.path(), url, port).steps("a"), [20, 25].into());
}

#[test]
fn another_machine_goes_on_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    another_machine_goes_on(&format!("file://{}/copies", folder.path().display()), 0);
}

#[test]
fn another_machine_goes_on_from_a_bucket() {
    let server = S3::start(0);
    another_machine_goes_on("s3://bucket/some/prefix", server.port);
    another_machine_goes_on("s3://bucket", server.port);
}

#[test]
fn a_large_stage_goes_to_a_bucket_in_parts() {
    let server = S3::start(0);
    let disk = tempfile::tempdir().unwrap();
    let big = state("fc1", 0.25, 9 << 20);
    let store = open(disk.path(), "s3://bucket/p", server.port);
    store.write("a", 10, std::slice::from_ref(&big)).unwrap();
    fs::remove_dir_all(disk.path().join("edge")).unwrap();
    let weights = store.read("a", 10, "fc1").unwrap().weights;
    assert!(weights == big.weights, "36 MiB are not what was written");
}

#[test]
fn a_place_that_is_away_holds_up_nothing_and_is_caught_up_with() {
    let port = free_port();
    let disk = tempfile::tempdir().unwrap();
    let store = open(disk.path(), "s3://bucket/p", port);
    write(&store, 10);
    store.retain("a", 2, &store.steps("a")).unwrap();
    assert_eq!(store.steps("a"), [10].into());
    let server = S3::start(port);
    write(&store, 20);
    let other = tempfile::tempdir().unwrap();
    assert_eq!(open(other.path(), "s3://bucket/p", server.port).steps("a"), [10, 20].into());
}

#[test]
fn copies_that_were_changed_or_cut_short_are_not_taken() {
    let (disk, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", folder.path().display());
    let store = open(disk.path(), &url, 0);
    write(&store, 10);
    write(&store, 20);
    let copies = folder.path().join("edge").join("a");
    let file = copies.join("step-00000010").join("fc1.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::remove_file(copies.join("step-00000020").join("manifest.json")).unwrap();
    fs::remove_dir_all(disk.path().join("edge")).unwrap();

    assert_eq!(store.steps("a"), [10].into());
    let refused = store.read("a", 10, "conv1").err().expect("a changed file").to_string();
    let what = format!("{url}/edge/a/step-00000010/fc1.safetensors: SHA-256 is ");
    assert!(refused.starts_with(&what), "{refused}");
    assert!(!disk.path().join("edge").join("a").join("step-00000010").exists());
}

#[test]
fn a_place_that_is_none_is_refused() {
    let disk = tempfile::tempdir().unwrap();
    for url in ["", "s3://", "file://relative", "gs://bucket", "/runs"] {
        let store = RunStore::with_copies(disk.path(), "edge", url, std::iter::empty());
        let refused = store.err().unwrap();
        let expected =
            format!("runs.store: {url:?}: allowed: s3://BUCKET/PREFIX and file:///FOLDER");
        assert_eq!(refused, expected);
    }
}
