//! How the edge's layers are put together, top to bottom, in one place.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cleave_shared::{
    compute::ComputePool,
    config::{Config, ConfigArgs, PROFILES, Plaintext},
    http2::{self, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MOST_STREAMS},
    link::{Link, LinkLayer, TcpConnector},
    listen::listen,
    memory,
    model::Port,
    security::{self, Credentials, Listener, Secret, TlsLayer},
    shutdown,
    telemetry::{self, trace::TraceLayer},
};
use http::Uri;
use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{BoxError, ServiceBuilder, util::BoxCloneSyncService};

use crate::{
    adapt::{Adapter, ObserveLayer, Seen},
    cloud::{
        Again, BreakerLayer, CloudClient, DeadlineLayer, FailoverLayer, InferAnswer, InferCall,
    },
    deploy::Deployer,
    generate::SplitGenerator,
    operations::Operations,
    page::{self, Clouds, Ledger, Observed, Page},
    ports,
    predict::{Gathered, SplitPredictor},
    proto,
    reconfigure::{Outlets, QUEUE, Reconfigurer},
    serve::{self, Access, Control, Gate, Gated, TextFiles, TextService},
};

/// Where another cloud can take over, silence may last for these parts of a request's deadline, so that it is answered
/// in time.
const SILENCE: u64 = 4;
/// What a client may take for sending one request: a batch of images over a slow mobile network.
const UPLOAD: Duration = Duration::from_secs(60);
/// How long requests in flight may take once the node was asked to end.
const DRAIN: Duration = Duration::from_secs(8);

/// The call that runs a tail, with its layers.
pub type CloudCall = BoxCloneSyncService<InferCall, InferAnswer, BoxError>;

/// The channel to the cloud, across the link and encrypted. It connects when it is first used and again whenever it
/// broke; to the next of several.
fn channel(config: &Config, link: &Link, clouds: &[String]) -> Result<Channel, String> {
    let files = config.security.files();
    let allowed = &config.security.plaintext;
    let mut uris = Vec::with_capacity(clouds.len());
    for cloud in clouds {
        let uri: Uri = cloud.parse().map_err(|e| format!("edge.cloud: {cloud}: {e}"))?;
        security::check_dial("edge.cloud", &uri, files.is_some(), allowed)?;
        uris.push(uri);
    }
    let first = uris.first().cloned().ok_or("edge.cloud: there is none")?;
    let several = uris.len() > 1;
    let tls = files.map(security::client).transpose().map_err(|e| format!("[security] {e}"))?;
    let failover = match config.edge.shuffle {
        true => FailoverLayer::new(uris).shuffled(),
        false => FailoverLayer::new(uris),
    };
    let patience = failover.patience();
    let connector = ServiceBuilder::new()
        .layer(failover)
        // Above the radio, as in a phone: handshakes and records take its time.
        .layer(TlsLayer::new(tls.map(Arc::new)))
        // The simulated radio, directly on the socket: HTTP/2's own frames take its time as well.
        .layer(LinkLayer::new(link.clone()))
        .service(TcpConnector);
    let mut endpoint =
        http2::endpoint(first, &config.link_profile().downlink).connect_timeout(patience);
    if several {
        let silence = Duration::from_millis(config.edge.deadline_ms / SILENCE);
        endpoint = endpoint.http2_keep_alive_interval(silence).keep_alive_timeout(silence);
    }
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The cloud of this configuration, across this link.
pub fn client(config: &Config, link: &Link) -> Result<CloudClient, String> {
    client_of(config, link, std::slice::from_ref(&config.edge.cloud))
}

/// The same for requests, which another cloud may answer as well.
fn serving_client(config: &Config, link: &Link) -> Result<CloudClient, String> {
    let edge = &config.edge;
    let clouds: Vec<String> = [&edge.cloud].into_iter().chain(&edge.standby).cloned().collect();
    client_of(config, link, &clouds)
}

fn client_of(config: &Config, link: &Link, clouds: &[String]) -> Result<CloudClient, String> {
    let credentials = Credentials::read(config.security.token.clone());
    let credentials = credentials.map_err(|e| format!("security.token: {e}"))?;
    Ok(CloudClient::new(channel(config, link, clouds)?, credentials, &clouds.join(", ")))
}

/// Inference calls to the cloud.
pub fn cloud_call(config: &Config, client: CloudClient, seen: Arc<Seen>) -> CloudCall {
    let call = tower::service_fn(move |call| {
        let client = client.clone();
        async move { client.infer(call).await }
    });
    let stack = ServiceBuilder::new()
        // Outermost: what finds no room below is refused at once instead of queueing.
        .load_shed()
        // Requests in flight: enough to fill the link, and a bound on their memory.
        .concurrency_limit(config.edge.queue)
        // What a call took, or that it failed, is what the planner learns from.
        .layer(ObserveLayer::new(seen))
        // A cloud that is gone is not waited for by each.
        .layer(BreakerLayer::default())
        // What was left of a request's time when it left has room for all its tries.
        .layer(DeadlineLayer)
        .retry(Again::new(config.edge.retries))
        .service(call);
    BoxCloneSyncService::new(stack)
}

/// Serves until SIGTERM or SIGINT. `args` is read again when the configuration file changes.
pub async fn serve(config: Config, args: ConfigArgs) -> Result<(), String> {
    let grpc = door(&config, "edge.grpc_listen", config.edge.grpc_listen, security::H2).await?;
    let http = door(&config, "edge.http_listen", config.edge.http_listen, security::HTTP_1).await?;

    // Before anything is counted: what was set earlier would be lost.
    telemetry::metrics::init();
    telemetry::trace::start("edge-node", &config.trace)?;
    tokio::spawn(memory::give_back_when_idle());
    let link = Link::new(config.link_profile(), config.link.seed);
    let client = serving_client(&config, &link)?;
    let pool = ComputePool::new(config.edge.threads, config.edge.queue, config.edge.machine());
    let deployer = Deployer::new(&config, client.clone())?;
    let (deployed, current) = watch::channel(None);
    let seen = Arc::new(Seen::default());
    let cloud = cloud_call(&config, client.clone(), seen.clone());
    let (in_force, config_now) = watch::channel(config.clone());
    let (planned, plans) = watch::channel(None);
    let (patience, patience_now) = watch::channel(None);
    let adapter = Adapter {
        cloud: client.clone(),
        seen: seen.clone(),
        config: config_now.clone(),
        planned,
        patience,
    };
    tokio::spawn(adapter.run());
    let (whole, spare) = watch::channel(None);
    let generator = SplitGenerator::new(&config, current.clone(), pool.clone(), client.clone());
    let tokenizer = ports::tokenizer(&config)?;
    let predictor = SplitPredictor::new(config.clone(), current.clone(), pool, cloud, tokenizer)
        .with_spare(spare, patience_now)
        .seen_by(seen);
    let predictor = Arc::new(predictor);
    let (wishes, asked) = mpsc::channel(QUEUE);
    let token = config.edge.admin_token.clone().map(Secret::read).transpose();
    let access = Arc::new(Access::new(token.map_err(|e| format!("edge.admin_token: {e}"))?));
    let gate = Gate::default();
    let page = Page {
        predictor: predictor.clone(),
        ledger: Arc::new(Ledger::new(config_now.clone())),
        current,
        config: config_now,
        link: link.clone(),
        cloud: client,
        clouds: Clouds::new(&config)?,
        profiles: args.file().ok().and_then(|file| Some(file.parent()?.join(PROFILES))),
        access: access.clone(),
        wishes: wishes.clone(),
    };
    let operations = Operations { ledger: page.ledger.clone(), gate: gate.clone(), access, wishes };
    let control: Arc<dyn Control> = Arc::new(operations);
    // Requests that wait at the same time share a head and a call, if they may.
    let predictor = Arc::new(Gathered::new(predictor));
    // What a request took is noted around all that is done for it, waiting for others as well.
    let predictor = Arc::new(Observed::new(predictor, page.ledger.clone()));
    let predictor = Arc::new(Gated::new(predictor, gate.clone()));
    let generator = Gated::new(Arc::new(generator), gate.clone());
    // Text on top of the generator: tokenizer, chat template, stop strings.
    let files = TextFiles::open(config.weights.tokenizer_file().as_deref())?;
    let name = config.edge.model_name.clone();
    let text = Arc::new(TextService::new(Arc::new(generator), name, files, config.edge.max_tokens));
    tracing::info!(
        grpc = %config.edge.grpc_listen, http = %config.edge.http_listen, cloud = config.edge.cloud,
        link = config.link.profile, "edge node serves"
    );

    let (health, health_service) = tonic_health::server::health_reporter();
    // Not healthy until something is deployed: `docker compose` waits for that.
    health.set_service_status("", ServingStatus::NotServing).await;
    health.set_not_serving::<Grpc>().await;
    let outlets = Outlets { in_force, deployed, whole };
    let reconfigurer =
        Reconfigurer::new(config.clone(), args, deployer, link.clone(), plans, asked, outlets);
    tokio::spawn(reconfigurer.run(async move || {
        tokio::spawn(tell_health(health, gate.watch()));
    }));

    let inputs = config.model.inputs();
    let (ending, _) = watch::channel(false);
    let grpc_server = Server::builder()
        .layer(TraceLayer)
        // Outermost: every call has a span, also one that is refused below.
        .trace_fn(|request| tracing::debug_span!("call", path = request.uri().path()))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MOST_STREAMS)
        // A request that never ends: its message has to come before its answer is due.
        .timeout(Duration::from_millis(config.edge.deadline_ms) + UPLOAD)
        .concurrency_limit_per_connection(config.edge.queue)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(|e| e.to_string())?)
        .add_service(reflection().build_v1alpha().map_err(|e| e.to_string())?)
        // Innermost: a message longer than the largest batch is refused before it is read.
        .add_service(serve::grpc_service(
            predictor.clone(),
            text.clone(),
            control.clone(),
            grpc_limit(&config, &inputs),
        ))
        .serve_with_incoming_shutdown(grpc, told(ending.subscribe()));
    let router = serve::rest_router(predictor.clone(), http_limit(&config, &inputs))
        // Beside the protocol's routes, and without its limits.
        .merge(serve::control_router(predictor, control))
        .merge(serve::openai_router(text))
        .merge(page::page_router(page, http_limit(&config, &inputs)))
        .merge(serve::metrics_router(link))
        .layer(TraceLayer);
    let http_server = serve::serve_http(http, router, told(ending.subscribe()));
    let servers = async {
        let (grpc, ()) = tokio::join!(grpc_server, http_server);
        grpc.map_err(|e| format!("gRPC server: {e}"))
    };
    let outcome = tokio::select! {
        outcome = servers => outcome,
        () = async {
            shutdown::requested().await;
            let _ = ending.send(true);
            tokio::time::sleep(DRAIN).await;
        } => {
            tracing::warn!("requests were still running; ended without them");
            Ok(())
        }
    };
    telemetry::trace::flush();
    outcome
}

type Grpc = serve::GrpcService<Gated<Observed<Gathered>>, Gated<SplitGenerator>>;

/// Healthy while the model is loaded.
async fn tell_health(health: HealthReporter, mut loaded: watch::Receiver<bool>) {
    loop {
        let is_loaded = *loaded.borrow_and_update();
        match is_loaded {
            true => {
                health.set_service_status("", ServingStatus::Serving).await;
                health.set_serving::<Grpc>().await;
            }
            false => {
                health.set_service_status("", ServingStatus::NotServing).await;
                health.set_not_serving::<Grpc>().await;
            }
        }
        if loaded.changed().await.is_err() {
            return;
        }
    }
}

/// Where clients come in: encrypted if the edge has an identity for them.
async fn door(
    config: &Config,
    key: &str,
    address: SocketAddr,
    alpn: &'static [u8],
) -> Result<Listener, String> {
    let identity = config.security.clients.identity();
    let (secret, allowed) = (identity.is_some(), &config.security.plaintext);
    security::check_listen(key, address, secret, Plaintext::Clients, allowed)?;
    let tls = identity.map(|identity| security::public_server(identity, alpn)).transpose();
    let tls = tls.map_err(|e| format!("[security.clients] {e}"))?;
    Ok(Listener::new(listen(key, address).await?, tls.map(Arc::new)))
}

async fn told(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

/// The largest batch as raw or as typed contents, and the fields around it.
fn grpc_limit(config: &Config, inputs: &[Port]) -> usize {
    let sample: usize = inputs.iter().map(Port::bytes).sum();
    config.edge.max_batch.saturating_mul(sample).saturating_add(64 << 10)
}

/// The same as JSON text, of up to 24 characters a number.
fn http_limit(config: &Config, inputs: &[Port]) -> usize {
    let sample: usize = inputs.iter().map(|p| p.largest().iter().product::<usize>()).sum();
    config.edge.max_batch.saturating_mul(sample).saturating_mul(24).saturating_add(64 << 10)
}

/// Both versions of reflection: clients are only now moving to v1.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
