//! When a node is asked to end.

use tokio::signal::unix::{SignalKind, signal};

/// Completes on SIGTERM (docker stop, kubernetes) and on SIGINT (Ctrl-C).
pub async fn requested() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the system's default, ending at once, is in force.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to end");
}
