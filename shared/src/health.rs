//! The client side of `grpc.health.v1`: a node asks itself whether it serves.
//!
//! Container healthchecks run `edge-node health` and `cloud-node health`, since an image made of
//! one static binary has no shell and no curl.

use std::{net::SocketAddr, time::Duration};

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Asks the gRPC server at `listen` (an unspecified address means this host) for its health.
pub async fn check(listen: SocketAddr) -> Result<(), String> {
    let host = if listen.ip().is_unspecified() { [127, 0, 0, 1].into() } else { listen.ip() };
    let address = format!("http://{}", SocketAddr::new(host, listen.port()));
    let channel = tonic::transport::Endpoint::from_shared(address.clone())
        .map_err(|e| e.to_string())?
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(2))
        .connect()
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
