//! A cloud and an edge with a configuration and a runs folder of their own.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use cleave_shared::{
    config::{Config, ConfigArgs},
    data::{Part, Split, gather},
    health,
    tensor::HostTensor,
};
use edge_node::proto::inference::{
    ModelInferRequest, ModelInferResponse,
    grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use tempfile::TempDir;
use tonic::{Status, transport::Channel};

/// Longest that anything here may take; only a failure takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A model that is quick to train, cut in the middle of six stages.
pub const CONFIG: &str = r#"
split_point = 2
[model]
family = "lenet"
input = [1, 8, 8]
channels = [4, 8]
hidden = [16]
classes = 10
[link]
profile = "none"
[train]
epochs = 3
checkpoint_every = 10
step_timeout_s = 5
reconnect_timeout_s = 30
[train.optimizer]
kind = "adam"
learning_rate = 0.01
beta1 = 0.9
beta2 = 0.999
epsilon = 1e-8
"#;

/// The test's own folder, addresses and processes; everything ends with it.
pub struct Nodes {
    dir: TempDir,
    pub cloud_port: u16,
    pub grpc_port: u16,
    pub http_port: u16,
    pub cloud: Option<Process>,
    pub edge: Option<Process>,
    /// Variables of all processes.
    pub environment: Vec<(&'static str, String)>,
    /// Settings of the one program and of the other, such as `cloud.threads=1`.
    pub cloud_sets: Vec<String>,
    pub edge_sets: Vec<String>,
}

/// A child process, killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// As `kill` does: `-STOP`, `-CONT`.
    pub fn signal(&self, name: &str) {
        assert!(self.kill(name).success(), "kill {name}");
    }

    fn kill(&self, name: &str) -> ExitStatus {
        let pid = self.0.id().to_string();
        Command::new("kill").args([name, &pid]).status().expect("kill runs")
    }

    /// Asks it to end, as docker does, and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        self.kill("-TERM");
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the process ignores SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Nodes {
    /// Nothing runs yet. `config` is the file's text, without addresses.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("config")).expect("a folder");
        let [cloud_port, grpc_port, http_port] = free_ports();
        let nodes = Self {
            dir,
            cloud_port,
            grpc_port,
            http_port,
            cloud: None,
            edge: None,
            environment: Vec::new(),
            cloud_sets: Vec::new(),
            edge_sets: Vec::new(),
        };
        nodes.write_config(config);
        nodes
    }

    /// Both nodes, healthy.
    pub async fn start(config: &str) -> Self {
        let mut nodes = Self::new(config);
        nodes.start_cloud().await;
        nodes.start_edge().await;
        nodes
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn runs(&self) -> PathBuf {
        self.path().join("runs")
    }

    pub fn config_file(&self) -> PathBuf {
        self.path().join("config").join("cleave.toml")
    }

    /// Replaces the configuration file, as an editor does: a new file under the old name.
    pub fn write_config(&self, text: &str) {
        let temporary = self.path().join("config").join("edited");
        fs::write(&temporary, text).expect("the file can be written");
        fs::rename(temporary, self.config_file()).expect("the file can be renamed");
    }

    fn sets(&self) -> Vec<String> {
        let set = |key: &str, value: String| format!("{key}={value}");
        vec![
            set("cloud.listen", format!("127.0.0.1:{}", self.cloud_port)),
            set("edge.cloud", format!("http://127.0.0.1:{}", self.cloud_port)),
            set("edge.grpc_listen", format!("127.0.0.1:{}", self.grpc_port)),
            set("edge.http_listen", format!("127.0.0.1:{}", self.http_port)),
            set("runs.dir", self.runs().display().to_string()),
        ]
    }

    /// The configuration as the nodes have it.
    pub fn config(&self) -> Config {
        let args =
            ConfigArgs { config: Some(self.config_file()), set: self.sets(), ..Default::default() };
        args.load().expect("the test's configuration is valid")
    }

    /// `edge-node` with this configuration, more words to be added.
    pub fn edge_command(&self, words: &[&str]) -> Command {
        self.command(PathBuf::from(env!("CARGO_BIN_EXE_edge-node")), words, &self.edge_sets)
    }

    /// `cloud-node` with this configuration, more words to be added.
    pub fn cloud_command(&self, words: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_edge-node")).with_file_name("cloud-node");
        self.command(program, words, &self.cloud_sets)
    }

    /// Runs `edge-node` with these words to its end, off the test's thread; what it printed.
    pub async fn done(&self, words: &[&str]) -> String {
        let output = output(self.edge_command(words)).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {errors}\n{}", self.logs());
        String::from_utf8(output.stdout).expect("text")
    }

    /// The one line with which `edge-node` refuses these words.
    pub async fn refused(&self, words: &[&str]) -> String {
        refused(self.edge_command(words)).await
    }

    /// Waits until `cloud-node health` says so: the way to a cloud that has TLS.
    pub async fn cloud_healthy(&self) {
        let health = async || {
            let output = output(self.cloud_command(&["health"])).await;
            output.status.success().then_some(())
        };
        eventually("a healthy cloud", health).await.unwrap_or_else(|| panic!("{}", self.logs()));
    }

    /// Waits until the edge has these words in its log.
    pub async fn edge_says(&self, words: &str) {
        let log = async || {
            let text = fs::read_to_string(self.path().join("edge.log")).ok()?;
            text.contains(words).then_some(())
        };
        eventually(words, log).await.unwrap_or_else(|| panic!("{}", self.logs()));
    }

    fn command(&self, program: PathBuf, words: &[&str], sets: &[String]) -> Command {
        assert!(program.is_file(), "{}: build the workspace first", program.display());
        let mut command = Command::new(program);
        command.args(words).arg("--config").arg(self.config_file());
        for set in self.sets().iter().chain(sets) {
            command.args(["--set", set]);
        }
        command.current_dir(self.path()).stdin(Stdio::null());
        command.envs(self.environment.iter().cloned());
        command
    }

    fn spawn(&self, mut command: Command, log: &str) -> Process {
        let log = self.path().join(log);
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let error = file.try_clone().expect("a second handle");
        let child = command.stdout(file).stderr(error).spawn();
        Process(child.expect("the program starts"))
    }

    /// Starts the cloud without waiting for it.
    pub fn launch_cloud(&mut self) {
        self.cloud = Some(self.spawn(self.cloud_command(&["serve"]), "cloud.log"));
    }

    pub async fn start_cloud(&mut self) {
        self.launch_cloud();
        self.healthy(self.cloud_port).await;
    }

    /// Starts the edge without waiting for it.
    pub fn launch_edge(&mut self) {
        self.launch_edge_with(&["serve"]);
    }

    /// The same with these words.
    pub fn launch_edge_with(&mut self, words: &[&str]) {
        self.edge = Some(self.launch(words, "edge.log"));
    }

    /// Starts `edge-node` with these words.
    pub fn launch(&self, words: &[&str], log: &str) -> Process {
        self.spawn(self.edge_command(words), log)
    }

    pub async fn start_edge(&mut self) {
        self.launch_edge();
        self.healthy(self.grpc_port).await;
    }

    /// Starts `edge-node train` with these words.
    pub fn launch_training(&self, words: &[&str]) -> Process {
        let words: Vec<&str> = ["train"].into_iter().chain(words.iter().copied()).collect();
        self.spawn(self.edge_command(&words), "train.log")
    }

    /// Waits until a command has ended well, and not on this thread: a test's proxies live here.
    pub async fn finishes(&self, mut process: Process) {
        let ended = tokio::task::spawn_blocking(move || process.0.wait()).await;
        let status = ended.expect("it is waited for").expect("it can be waited for");
        assert!(status.success(), "{}", self.logs());
    }

    pub async fn healthy(&self, port: u16) {
        let address = ([127, 0, 0, 1], port).into();
        eventually("a healthy node", async || health::check(address).await.ok())
            .await
            .unwrap_or_else(|| panic!("{}", self.logs()));
    }

    /// What the nodes wrote, for a failing test.
    pub fn logs(&self) -> String {
        let log = |name| fs::read_to_string(self.path().join(name)).unwrap_or_default();
        format!(
            "cloud: {}\nedge: {}\ntrain: {}",
            log("cloud.log"),
            log("edge.log"),
            log("train.log")
        )
    }

    pub async fn client(&self) -> GrpcInferenceServiceClient<Channel> {
        let address = format!("http://127.0.0.1:{}", self.grpc_port);
        GrpcInferenceServiceClient::connect(address).await.expect("the edge answers")
    }

    /// The edge's answer to these digits.
    pub async fn infer(&self, input: HostTensor) -> Result<ModelInferResponse, Status> {
        let reply = self.client().await.model_infer(request(input)).await;
        reply.map(tonic::Response::into_inner)
    }
}

/// The one line with which a node refuses this command.
pub async fn refused(command: Command) -> String {
    let output = output(command).await;
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

pub async fn output(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.output());
    ended.await.expect("it is waited for").expect("the program runs")
}

/// Waits until `look` sees something; `None` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return Some(seen);
        }
        if begin.elapsed() > PATIENCE {
            eprintln!("waited in vain for {what}");
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Held-out digits, `[count, 1, 8, 8]`.
pub fn digits(config: &Config, count: usize) -> HostTensor {
    let dataset = config.data.open().expect("the digits are embedded");
    let split = Split::new(dataset.len(), config.seed);
    gather(dataset.as_ref(), &split.indices(Part::Test)[..count]).inputs.remove(0).1
}

/// A well-formed request for the model `digits`.
pub fn request(input: HostTensor) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "digits".into(),
        inputs: vec![InferInputTensor {
            name: "input".into(),
            datatype: "FP32".into(),
            shape: input.shape().iter().map(|&d| d as i64).collect(),
            ..Default::default()
        }],
        raw_input_contents: vec![input.into_data()],
        ..Default::default()
    }
}

/// The split point that an answer was computed with.
pub fn split_point(reply: &ModelInferResponse) -> u64 {
    let choice = reply.parameters["split_point"].parameter_choice.as_ref();
    match choice.expect("a value") {
        ParameterChoice::Int64Param(v) => *v as u64,
        ParameterChoice::Uint64Param(v) => *v,
        other => panic!("split_point is {other:?}"),
    }
}

/// Ports that nobody listens on.
pub fn free_ports<const N: usize>() -> [u16; N] {
    // All at once, so that none is given twice.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|l| l.local_addr().expect("an address").port())
}
