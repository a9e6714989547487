//! Text generation over both nodes, with clients that nobody here wrote: the same answers as
//! transformers, whole and streamed, wherever the model is split.

use std::{path::Path, process::Command};

use crate::nodes::Nodes;

/// As in tests/python/generation_reference.py.
const CONFIG: &str = r#"
split_point = 2
[model]
family = "gpt2"
vocab_size = 384
n_positions = 256
n_embd = 48
n_layer = 3
n_head = 4
[link]
profile = "none"
[edge]
model_name = "small"
"#;
/// All in the cloud, between two blocks, all on the edge.
const SPLITS: [usize; 3] = [0, 2, 5];

fn python(script: &str, words: &[&str]) -> Result<String, String> {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python");
    let output = Command::new(python).arg(folder.join(script)).args(words).output();
    let output = output.expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok(all) } else { Err(all) }
}

#[tokio::test]
async fn openai_answers_are_those_of_transformers_at_every_split_point() {
    let mut nodes = Nodes::new(CONFIG);
    let model = nodes.path().join("model");
    std::fs::create_dir(&model).expect("a folder");
    let file = |name: &str| model.join(name).to_str().expect("plain ASCII").to_string();
    println!(
        "{}",
        python("generation_reference.py", &[&file("")]).unwrap_or_else(|e| panic!("{e}"))
    );
    let config = format!("{CONFIG}[weights]\nfile = {:?}\n", file("model.safetensors"));
    nodes.write_config(&config);
    nodes.start_cloud().await;
    for split in SPLITS {
        nodes.write_config(&config.replace("split_point = 2", &format!("split_point = {split}")));
        nodes.start_edge().await;
        let http = format!("127.0.0.1:{}", nodes.http_port);
        let grpc = format!("127.0.0.1:{}", nodes.grpc_port);
        let runs = [("reference", file("cases.json")), ("protocol", file("tokenizer.json"))];
        // The protocol does not depend on the split point; once is enough.
        for (mode, file) in runs.iter().take(if split == 2 { 2 } else { 1 }) {
            println!("{mode} at split point {split}");
            match python("openai_client.py", &[mode, &http, &grpc, "small", file]) {
                Ok(text) => println!("{text}"),
                Err(text) => panic!("{text}\n{}", nodes.logs()),
            }
        }
        nodes.edge = None;
    }
}
