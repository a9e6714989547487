//! `edge-node link` and `edge-node trace`: the simulated network on its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use cleave_shared::{
    checkpoint::write_atomic,
    config::PROFILES,
    link::{
        Scheduler,
        generate::{Scenario, generate, provenance},
    },
};

use crate::link::{edges::ProfileSource, proxy, simulate};

#[derive(Args)]
pub struct LinkArgs {
    /// Where to accept connections
    #[arg(long, value_name = "ADDRESS", required_unless_present = "simulate")]
    listen: Option<SocketAddr>,
    /// Where to forward them; bytes towards it are uplink
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "simulate")]
    to: Option<String>,
    /// Which network to simulate: a name, or the path of a .toml file
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// Folder of profile files [default: config/links, then /etc/cleave/links]
    #[arg(long, value_name = "FOLDER")]
    profiles: Option<PathBuf>,
    /// Seed of jitter, block errors and outages
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Each client address is an edge; they share one cell, by this scheduler
    #[arg(long, value_name = "SCHEDULER")]
    cell: Option<CellScheduler>,
    /// Serves GET /metrics, and GET and PUT /profile to switch the network
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Writes rate, queue and round trip over time to this SVG file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// No connections: plots this many seconds of a saturated link, in virtual time
    #[arg(long, value_name = "SECONDS", requires = "plot", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    simulate: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CellScheduler {
    RoundRobin,
    ProportionalFair,
}

#[derive(Args)]
pub struct TraceArgs {
    /// What to simulate
    #[arg(long, value_parser = PossibleValuesParser::new(Scenario::NAMES))]
    scenario: String,
    /// The same seed makes the same trace
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Length of a row, ms
    #[arg(long, default_value_t = 100)]
    step_ms: u32,
    /// Writes a CSV file
    #[arg(long, value_name = "FILE.csv", required_unless_present = "mahimahi")]
    out: Option<PathBuf>,
    /// Writes a pair of Mahimahi traces, PREFIX.up and PREFIX.down
    #[arg(long, value_name = "PREFIX")]
    mahimahi: Option<PathBuf>,
}

pub fn link(args: LinkArgs) -> Result<(), String> {
    let folder = args.profiles.or_else(|| {
        let usual = [Path::new("config"), Path::new("/etc/cleave")].map(|f| f.join(PROFILES));
        usual.into_iter().find(|folder| folder.is_dir())
    });
    let profile = ProfileSource { name: args.profile, folder };
    if let Some(file) = &args.plot {
        let svg = file.extension().is_some_and(|extension| extension == "svg");
        svg.then_some(()).ok_or("--plot: the file must end in .svg")?;
    }
    if let (Some(seconds), Some(file)) = (args.simulate, &args.plot) {
        return simulate::draw(&profile.load()?, args.seed, Duration::from_secs(seconds), file);
    }
    let (Some(listen), Some(to)) = (args.listen, args.to) else {
        return Err("--listen and --to are missing".into());
    };
    let cell = args.cell.map(|scheduler| match scheduler {
        CellScheduler::RoundRobin => Scheduler::RoundRobin,
        CellScheduler::ProportionalFair => Scheduler::ProportionalFair,
    });
    let (seed, admin, plot) = (args.seed, args.admin, args.plot);
    proxy::serve(proxy::Options { listen, to, profile, seed, cell, admin, plot })
}

pub fn trace(args: &TraceArgs) -> Result<(), String> {
    let scenario = Scenario::named(&args.scenario).ok_or("--scenario: unknown")?;
    let (seed, seconds, step_ms) = (args.seed, args.seconds, args.step_ms);
    let trace = generate(&scenario, seed, seconds, step_ms).map_err(|error| error.to_string())?;
    let write = |path: PathBuf, bytes: Vec<u8>| {
        write_atomic(&path, &bytes).map_err(|error| error.to_string())?;
        println!("wrote {}", path.display());
        Ok::<(), String>(())
    };
    if let Some(path) = &args.out {
        let mut bytes = provenance(&scenario, seed, seconds, step_ms).into_bytes();
        trace.write_csv(&mut bytes).map_err(|error| error.to_string())?;
        write(path.clone(), bytes)?;
    }
    if let Some(prefix) = &args.mahimahi {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        trace.write_mahimahi(&mut up, &mut down).map_err(|error| error.to_string())?;
        let named = |end: &str| PathBuf::from(format!("{}.{end}", prefix.display()));
        write(named("up"), up)?;
        write(named("down"), down)?;
    }
    Ok(())
}
