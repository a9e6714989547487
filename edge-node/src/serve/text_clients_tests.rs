//! Stock clients of text generation, over real sockets, with a generator that is quick and known.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{Arc, atomic::Ordering},
};

use axum::{Router, routing::get};
use tempfile::TempDir;
use tonic::transport::{Server, server::TcpIncoming};

use super::{
    TextFiles, TextService,
    fake::{Fake, FakeControl},
    fake_generator::FakeGenerator,
    grpc_service, openai_router, rest_router,
};

/// The name of the served model.
const MODEL: &str = "toy";
const LIMIT: usize = 1 << 20;

pub fn python(script: &str, words: &[&str]) -> Output {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python");
    let output = Command::new(python).arg(folder.join(script)).args(words).output();
    let output = output.expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}", text(&output.stdout));
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    output
}

/// A folder with a tokenizer and a chat template.
fn tokenizer() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    python("small_tokenizer.py", &[folder.path().to_str().unwrap()]);
    folder
}

/// Serves HTTP and gRPC until the test's runtime ends; their addresses.
async fn serve(generator: FakeGenerator, files: TextFiles) -> (String, String) {
    let alive = generator.alive.clone();
    let text = Arc::new(TextService::new(Arc::new(generator), MODEL.into(), files, 1000));
    let predictor = Arc::new(Fake::default());
    let count = move || async move { alive.load(Ordering::SeqCst).to_string() };
    let router: Router = rest_router(predictor.clone(), LIMIT)
        .merge(openai_router(text.clone()))
        .route("/alive", get(count));
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let grpc = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [&http, &grpc].map(|l| l.local_addr().unwrap().to_string());
    tokio::spawn(axum::serve(http, router).into_future());
    let control = Arc::new(FakeControl::default());
    let service = grpc_service(predictor, text, control, LIMIT);
    tokio::spawn(
        Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(grpc)),
    );
    let [http, grpc] = addresses;
    (http, grpc)
}

async fn client(mode: &'static str, generator: FakeGenerator) {
    let folder = tokenizer();
    let file = folder.path().join("tokenizer.json");
    let files = TextFiles::open(Some(&file)).unwrap();
    let (http, grpc) = serve(generator, files).await;
    let run = tokio::task::spawn_blocking(move || {
        python("openai_client.py", &[mode, &http, &grpc, MODEL, file.to_str().unwrap()])
    });
    run.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_and_tritonclient_work_unchanged() {
    // Ids up to 399 of a tokenizer with 384: some have no text, some end the answer.
    let generator = FakeGenerator { positions: 512, ids: 0..400, ..Default::default() };
    client("protocol", generator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_reach_the_client_and_clients_that_leave_end_generations() {
    // 900 tokens take at least 9 s: longer than the client of the test stays.
    let generator =
        FakeGenerator { positions: 1024, ids: 20..40, token_ms: 10, ..Default::default() };
    client("failures", generator).await;
}
