//! The simulated link in front of any program: a TCP proxy.
//!
//! What comes in at `listen` goes out to `to` over the radio of the edge that it came from: bytes
//! towards `to` are uplink, bytes back are downlink. So a program that knows nothing of Cleave, a peer to
//! measure against for one, gets the same network.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use cleave_shared::{
    checkpoint,
    link::{Link, Scheduler},
    listen::listen,
    shutdown,
};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
};

use super::{
    admin::{self, Control},
    edges::{Edges, ProfileSource},
    plot,
    record::Recorder,
};

/// Bytes read at once: a few milliseconds of the fastest profile.
const BUFFER: usize = 256 << 10;
/// Pause when the system has no socket left to give.
const BREATHER: Duration = Duration::from_millis(100);
/// How often the profile's file is looked at, and how often the picture's file is written.
const LOOK: Duration = Duration::from_secs(1);
/// How often the link is sampled for the picture.
const SAMPLE: Duration = Duration::from_millis(50);

/// What to put the link between.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    /// `host:port`, looked up for each connection.
    pub to: String,
    pub profile: ProfileSource,
    /// Seed of jitter, errors and outages.
    pub seed: u64,
    /// Each client address is an edge of its own, and they share a cell.
    pub cell: Option<Scheduler>,
    /// Where to serve metrics and switch profiles.
    pub admin: Option<SocketAddr>,
    /// Where to write the picture.
    pub plot: Option<PathBuf>,
}

/// Forwards until SIGTERM or SIGINT.
#[tokio::main]
pub async fn serve(options: Options) -> Result<(), String> {
    run(options).await
}

async fn run(options: Options) -> Result<(), String> {
    let profile = options.profile.load()?;
    let listener = listen("--listen", options.listen).await?;
    let name = profile.name.clone();
    let edges = Edges::new(profile, options.seed, options.cell);
    let control = Arc::new(Control::new(edges, options.profile.clone()));
    if let Some(address) = options.admin {
        let listener = listen("--admin", address).await?;
        tokio::spawn(admin::serve(listener, Arc::clone(&control)));
    }
    tracing::info!(listen = %options.listen, to = options.to, profile = name, "link is up");
    let mut picture = Picture::new(options.plot.clone());
    tokio::select! {
        () = forward(listener, &options.to, &control) => {}
        () = watch(&control) => {}
        () = picture.draw_on(&control) => {}
        () = shutdown::requested() => {}
    }
    picture.write(&control)?;
    for (edge, link) in control.edges.all() {
        let counted = link.counters();
        tracing::info!(
            edge,
            uplink_bytes = counted.uplink.delivered_bytes,
            downlink_bytes = counted.downlink.delivered_bytes,
            dropped_packets = counted.uplink.dropped_packets + counted.downlink.dropped_packets,
            connections = counted.connections,
            "link is down"
        );
    }
    Ok(())
}

async fn forward(listener: TcpListener, to: &str, control: &Control) {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                let (to, link) = (to.to_string(), control.link(peer.ip()));
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

/// Takes changes of the profile's file into force.
async fn watch(control: &Control) {
    let mut complaint = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let outcome = control.refresh().err();
        if let Some(error) = outcome.as_ref().filter(|_| outcome != complaint) {
            tracing::error!("{error}; the old profile stays in force");
        }
        complaint = outcome;
    }
}

/// The picture of the first edge's link while it runs.
struct Picture {
    file: Option<PathBuf>,
    begin: Instant,
    recorder: Recorder,
}

impl Picture {
    fn new(file: Option<PathBuf>) -> Self {
        Self { file, begin: Instant::now(), recorder: Recorder::default() }
    }

    async fn draw_on(&mut self, control: &Control) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        let mut written = Instant::now();
        loop {
            if let Some((_, link)) = control.edges.all().first() {
                self.recorder.note(self.begin.elapsed().as_secs_f64(), link.status());
            }
            if written.elapsed() >= LOOK {
                written = Instant::now();
                if let Err(error) = self.write(control) {
                    tracing::warn!("{error}");
                }
            }
            tokio::time::sleep(SAMPLE).await;
        }
    }

    fn write(&self, control: &Control) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let picture = plot::svg(&control.edges.profile().name, self.recorder.samples());
        checkpoint::write_atomic(file, picture.as_bytes())
            .map_err(|e| format!("--plot {}: {e}", file.display()))
    }
}
