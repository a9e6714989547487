//! Opening a listening socket.

use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Binds `address`, which the config has at `key`; a failure says what to do about it.
pub async fn listen(key: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| {
        format!("{key}: cannot listen on {address}: {e}; end what uses it or set another address")
    })
}
