//! The client side of `grpc.health.v1`: a node asks itself whether it serves.
//!
//! Container healthchecks run `edge-node health` and `cloud-node health`, since an image made of
//! one static binary has no shell and no curl.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    link::TcpConnector,
    security::{self, Files, Identity, TlsLayer},
};

const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the gRPC server at `listen` (an unspecified address means this host) for its health.
pub async fn check(listen: SocketAddr) -> Result<(), String> {
    ask("http", listen, TlsLayer::new(None)).await
}

/// The same of a server that has this identity, with the same identity.
pub async fn check_secure(listen: SocketAddr, files: Files) -> Result<(), String> {
    let problem = |error| format!("[security] {error}");
    // Whatever address it is asked at, it answers by its own name.
    let name = security::first_name(&files).map_err(problem)?;
    let tls = Arc::new(security::client(files).map_err(problem)?);
    ask("https", listen, TlsLayer::new(Some(tls)).named(name)).await
}

/// The same of this node's own server, which shows this to its clients and asks them for nothing.
pub async fn check_itself(listen: SocketAddr, identity: Identity) -> Result<(), String> {
    let tls = security::to_itself(identity).map_err(|e| format!("[security.clients] {e}"))?;
    ask("https", listen, TlsLayer::new(Some(Arc::new(tls)))).await
}

async fn ask(scheme: &str, listen: SocketAddr, tls: TlsLayer) -> Result<(), String> {
    let host = if listen.ip().is_unspecified() { [127, 0, 0, 1].into() } else { listen.ip() };
    let address = format!("{scheme}://{}", SocketAddr::new(host, listen.port()));
    let connector =
        ServiceBuilder::new().layer(tls).service(TcpConnector.map_response(TokioIo::new));
    let channel: Channel = Endpoint::from_shared(address.clone())
        .map_err(|e| e.to_string())?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .connect_with_connector(connector)
        .await
        .map_err(|e| format!("{address} does not answer: {e}"))?;
    let request = HealthCheckRequest { service: String::new() };
    let reply = HealthClient::new(channel).check(request).await;
    match reply {
        Ok(r) if r.get_ref().status() == ServingStatus::Serving => Ok(()),
        Ok(r) => Err(format!("{address} is {:?}", r.get_ref().status())),
        Err(status) => Err(format!("{address}: {status}")),
    }
}
