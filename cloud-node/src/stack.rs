//! The cloud node's server, top to bottom, in one place.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use cleave_shared::{
    compute::ComputePool,
    config::{Config, Plaintext, SecurityConfig},
    http2::{self, MAX_MESSAGE_BYTES},
    listen::listen,
    memory,
    security::{self, Admission, AdmitLayer, Listener, QuotaLayer, ServerTls, Tokens},
    shutdown,
    telemetry::{self, trace::TraceLayer},
    timed,
    wire::{
        self,
        v1::{group_service_server::GroupServiceServer, split_service_server::SplitServiceServer},
    },
};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    batcher::Batcher, clock::Clock, cut_ports::CutPorts, generate::Generation, group::Groups,
    handshake::Handshake, inference::Inference, profile::Profiler, service::Split, tails::Tails,
    train::Trainer,
};

/// How long requests in flight may take once the node was asked to end; docker kills after 10 s.
const DRAIN: Duration = Duration::from_secs(8);

/// Serves until SIGTERM or SIGINT.
pub async fn serve(config: Config) -> Result<(), String> {
    let tls = identity(&config)?;
    let admission = admission(&config.security)?;
    if let Some(listener) = metrics_listener(&config).await? {
        // Before anything is counted: what was set earlier would be lost.
        telemetry::metrics::init();
        serve_metrics(listener);
    }
    telemetry::trace::start("cloud-node", &config.trace)?;
    tokio::spawn(memory::give_back_when_idle());
    let (ending, ended) = watch::channel(false);
    let (service, groups) = services(&config, ended)?;
    let listener = listen("cloud.listen", config.cloud.listen).await?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let mutual_tls = tls.is_some();
    let incoming = Listener::new(listener, tls);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SplitServiceServer<Split>>().await;
    let server = http2::server(&config.link_profile().uplink)
        // Outermost: every call has a span, also one that is refused below.
        .trace_fn(|request| tracing::debug_span!("call", path = request.uri().path()))
        .layer(TraceLayer)
        // Who is not known gets no further.
        .layer(AdmitLayer::new(admission))
        // Nor does one whose message takes too long; above the quota, whose waiting is not the edge's.
        .layer(timed::layer())
        // Nor does one that asks for more than its share.
        .layer(QuotaLayer::new(config.security.quota.limits()))
        // One connection cannot take the whole node: further calls on it wait their turn.
        .concurrency_limit_per_connection(config.cloud.queue)
        .add_service(health_service)
        .add_service(reflection_v1())
        .add_service(reflection_v1alpha())
        // Innermost: a message longer than this is refused before it is read.
        .add_service(SplitServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(GroupServiceServer::new(groups).max_decoding_message_size(MAX_MESSAGE_BYTES));

    tracing::info!(%address, mutual_tls, model = config.model.family_name(), "cloud node serves");
    let drained = async {
        shutdown::requested().await;
        health.set_not_serving::<SplitServiceServer<Split>>().await;
        // Training streams have no end of their own.
        let _ = ending.send(true);
    };
    let mut asked = ending.subscribe();
    let outcome = tokio::select! {
        outcome = server.serve_with_incoming_shutdown(incoming, drained) => {
            outcome.map_err(|e| format!("server: {e}"))
        }
        () = async {
            let _ = asked.wait_for(|asked| *asked).await;
            tokio::time::sleep(DRAIN).await;
        } => {
            tracing::warn!("requests were still running; ended without them");
            Ok(())
        }
    };
    telemetry::trace::flush();
    outcome
}

/// How the socket is encrypted; none where that is not asked for.
fn identity(config: &Config) -> Result<Option<Arc<ServerTls>>, String> {
    let files = config.security.files();
    let (address, allowed) = (config.cloud.listen, &config.security.plaintext);
    security::check_listen("cloud.listen", address, files.is_some(), Plaintext::Link, allowed)?;
    let tls = files.map(security::server).transpose().map_err(|e| format!("[security] {e}"))?;
    Ok(tls.map(Arc::new))
}

fn admission(config: &SecurityConfig) -> Result<Admission, String> {
    let tokens = config.tokens.clone().map(Tokens::read).transpose();
    let tokens = tokens.map_err(|e| format!("security.tokens: {e}"))?;
    Ok(Admission { edges: config.edges.clone(), tokens })
}

/// Where metrics are read, if anywhere.
async fn metrics_listener(config: &Config) -> Result<Option<TcpListener>, String> {
    const KEY: &str = "cloud.metrics_listen";
    let Some(address) = config.cloud.metrics_listen else { return Ok(None) };
    // They have no TLS.
    security::check_listen(KEY, address, false, Plaintext::Metrics, &config.security.plaintext)?;
    listen(KEY, address).await.map(Some)
}

/// `GET /metrics`, for the life of the process.
fn serve_metrics(listener: TcpListener) {
    let router = Router::new().route("/metrics", get(async || telemetry::metrics::render()));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "metrics are no longer served");
        }
    });
}

/// The services and what they stand on.
fn services(config: &Config, ended: watch::Receiver<bool>) -> Result<(Split, Groups), String> {
    let clock = Arc::new(Clock::start());
    let store = Arc::new(config.runs.open("cloud")?);
    let handshake = Arc::new(Handshake::new(config, store.clone()));
    let library = Arc::new(config.library(store)?);
    let pool = ComputePool::new(config.cloud.threads, config.cloud.queue, config.cloud.machine());
    let (spec, format) = (config.model.clone(), config.quantize.weights);
    let tails = Arc::new(Tails::new(spec, format, library.clone(), config.cloud.max_tails));
    let inference = Arc::new(Inference {
        handshake: handshake.clone(),
        ports: CutPorts::of(&config.model),
        tails: tails.clone(),
        pool: pool.clone(),
        batcher: Batcher::new(pool.clone(), config.cloud.max_batch, config.cloud.batch_delay()),
        clock: clock.clone(),
    });
    let generation = Generation::new(config, &inference, ended.clone());
    let profiler = Profiler::new(config, handshake.clone(), library.clone(), pool.clone());
    let groups =
        Groups::new(config, handshake.clone(), library.clone(), pool.clone(), ended.clone());
    let trainer =
        Trainer::new(config, handshake.clone(), library.clone(), tails, pool, clock.clone(), ended);
    let split = Split {
        spec: config.model.clone(),
        handshake,
        inference,
        trainer,
        generation,
        profiler,
        library,
        clock,
        limit: config.cloud.max_activation_bytes,
    };
    Ok((split, groups))
}

/// Both versions of reflection: clients are only now moving to v1.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn reflection_v1() -> tonic_reflection::server::v1::ServerReflectionServer<
    impl tonic_reflection::server::v1::ServerReflection,
> {
    reflection().build_v1().expect("the descriptors were compiled with this program")
}

fn reflection_v1alpha() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    reflection().build_v1alpha().expect("the descriptors were compiled with this program")
}
