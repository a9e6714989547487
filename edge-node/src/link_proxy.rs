//! The simulated link in front of any program: a TCP proxy.
//!
//! What comes in at `listen` goes out to `to` over one radio that all connections share: bytes
//! towards `to` are uplink, bytes back are downlink. So a program that knows nothing of Cleave, a
//! peer to measure against for one, gets the same network.

use std::{io, net::SocketAddr, time::Duration};

use cleave_shared::{
    link::{Link, LinkCounters, Profile},
    listen::listen,
    shutdown,
};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
};

/// Bytes read at once: a few milliseconds of the fastest profile.
const BUFFER: usize = 256 << 10;
/// Pause when the system has no socket left to give.
const BREATHER: Duration = Duration::from_millis(100);

/// What to put the link between.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    /// `host:port`, looked up for each connection.
    pub to: String,
    pub profile: Profile,
    /// Seed of the jitter.
    pub seed: u64,
}

/// Forwards until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), String> {
    let listener = listen("--listen", options.listen).await?;
    let link = Link::new(options.profile.clone(), options.seed);
    let (profile, to) = (&options.profile.name, &options.to);
    tracing::info!(listen = %options.listen, to, profile, "link is up");
    tokio::select! {
        () = forward(listener, &options.to, &link) => {}
        () = shutdown::requested() => {}
    }
    let LinkCounters { uplink_bytes, downlink_bytes, connections } = link.counters();
    tracing::info!(uplink_bytes, downlink_bytes, connections, "link is down");
    Ok(())
}

async fn forward(listener: TcpListener, to: &str, link: &Link) {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                let (to, link) = (to.to_string(), link.clone());
                tokio::spawn(async move {
                    if let Err(error) = carry(client, &to, &link).await {
                        tracing::warn!(%peer, to, %error, "connection failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

/// One connection, until both sides have ended it.
async fn carry(mut client: TcpStream, to: &str, link: &Link) -> io::Result<()> {
    client.set_nodelay(true)?;
    let target = TcpStream::connect(to).await?;
    target.set_nodelay(true)?;
    let mut shaped = link.shape(target);
    copy_bidirectional_with_sizes(&mut client, &mut shaped, BUFFER, BUFFER).await?;
    Ok(())
}
