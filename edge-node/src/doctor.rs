//! `edge-node doctor`: what both nodes look at, and what only an edge asks: its ports, its clouds, their clocks, the link,
//! and what is deployed.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cleave_shared::{
    config::{Config, ConfigArgs, EdgeConfig, Fallback},
    doctor::{self, Finding},
    health,
    link::{Link, Profile},
};

use crate::{
    cloud::{Bound, CloudClient, explain},
    deploy::{Deployer, Pointer, Target},
    stack,
};

/// How long a cloud may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes, of which the quickest counts.
const GREETINGS: usize = 5;
/// How far apart clocks may be. Certificates are made some minutes early by those who make them; traces show more.
const CLOCK_APART_MS: i64 = 1000;

/// All checks, in the order in which what they look at is needed.
pub async fn examine(args: &ConfigArgs) -> Vec<Finding> {
    let threads = |config: &Config| (config.edge.threads, config.edge.kernel_threads);
    let (config, mut findings) = match doctor::begin(args, threads) {
        Ok(begun) => begun,
        Err(wrong) => return vec![wrong],
    };
    findings.push(link(&config));
    findings.extend(doctor::identity(&config));
    findings.push(port(&config, "edge.grpc_listen", config.edge.grpc_listen).await);
    findings.push(port(&config, "edge.http_listen", config.edge.http_listen).await);
    let opened = target(&config);
    findings.extend(deployed(&config, &opened));
    let clouds = [&config.edge.cloud].into_iter().chain(&config.edge.standby);
    for cloud in clouds {
        findings.extend(ask(&config, cloud, &opened).await);
    }
    findings
}

/// The simulated link.
fn link(config: &Config) -> Finding {
    let profile = config.link_profile();
    if profile.is_ideal() {
        return Finding::ok("link", format!("{}: the network as it is", profile.name));
    }
    let rate = |bps: u64| match bps {
        0 => "no limit".to_string(),
        bps => format!("{:.1} Mbit/s", bps as f64 / 1e6),
    };
    let (up, down) = (rate(profile.uplink.rate_bps), rate(profile.downlink.rate_bps));
    let rtt = profile.delay_ms();
    Finding::ok("link", format!("{}: uplink {up}, downlink {down}, RTT {rtt:.1} ms", profile.name))
}

/// An address that the edge listens on.
async fn port(config: &Config, key: &str, at: SocketAddr) -> Finding {
    let healthy = async {
        let grpc = config.edge.grpc_listen;
        match config.security.clients.identity() {
            None => health::check(grpc).await,
            Some(identity) => health::check_itself(grpc, identity).await,
        }
    };
    doctor::port(key, at, "an edge", healthy).await
}

/// What an edge with this configuration would serve.
fn deployed(config: &Config, opened: &Opened) -> Vec<Finding> {
    const CHECK: &str = "deployed";
    let pointer = match Pointer::read(&config.runs.dir) {
        Ok(pointer) => pointer,
        Err(error) => return vec![Finding::error(CHECK, error.to_string())],
    };
    let other = pointer.filter(|p| p.spec_hash != config.model.hash()).map(|p| {
        let found = format!("run {} is deployed, but its model is another one", p.run);
        let advice = "name its model and sizes in [model], or train this one";
        Finding::warning(CHECK, found, advice)
    });
    let weights = opened.as_ref().map(|(deployer, target)| {
        // The whole model where it may have to run here.
        let whole = config.edge.fallback == Fallback::Whole || config.split_point.is_auto();
        let stages = if whole { config.model.stage_count() } else { target.split };
        match stages {
            0 => Finding::ok("weights", "none are needed on the edge"),
            _ => doctor::weights(deployer.library(), &target.weights, 0..stages),
        }
    });
    let weights = weights.unwrap_or_else(|problem| Finding::error("weights", problem));
    other.into_iter().chain([weights]).collect()
}

/// The weights, and which of them are to be served; opened once for all checks.
type Opened = Result<(Deployer, Target), String>;

fn target(config: &Config) -> Opened {
    let deployer = Deployer::new(config, client(config, &config.edge.cloud)?)?;
    let target = deployer.target(config)?;
    Ok((deployer, target))
}

/// A client of one cloud, beside the simulated link.
fn client(config: &Config, cloud: &str) -> Result<CloudClient, String> {
    let none = Link::new(Profile::builtin("none").expect("comes with Cleave"), 0);
    let edge = EdgeConfig { cloud: cloud.into(), ..config.edge.clone() };
    stack::client(&Config { edge, ..config.clone() }, &none)
}

/// Whether a cloud answers, agrees, is of the same version and has the same time.
async fn ask(config: &Config, address: &str, opened: &Opened) -> Vec<Finding> {
    const CHECK: &str = "cloud";
    let greeted = async {
        let client = client(config, address)?;
        let (_, target) = opened.as_ref().map_err(String::clone)?;
        let agreement = config.agreement(target.split, &target.weights.to_string());
        let mut best: Option<(Bound, i64)> = None;
        for _ in 0..GREETINGS {
            let answer = tokio::time::timeout(PATIENCE, client.bind(&agreement)).await;
            let answer = answer.map_err(|_| silent(address))?;
            let bound = answer.map_err(|status| explain(address, &status))?;
            let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let middle = here.as_millis() as i64 - (bound.rtt_ms / 2.0) as i64;
            let ahead = bound.wall_clock_ms as i64 - middle;
            if best.as_ref().is_none_or(|(b, _)| bound.rtt_ms < b.rtt_ms) {
                best = Some((bound, ahead));
            }
        }
        best.ok_or_else(|| silent(address))
    };
    match greeted.await {
        Ok((bound, ahead)) => judged(address, &bound, ahead),
        Err(problem) => vec![Finding::error(CHECK, problem)],
    }
}

fn silent(address: &str) -> String {
    format!("the cloud at {address} does not answer within {} s", PATIENCE.as_secs())
}

/// `ahead`: ms that the cloud's clock is ahead of this one.
fn judged(address: &str, bound: &Bound, ahead: i64) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let Bound { rtt_ms, version, missing_stages, .. } = bound;
    let missing = match missing_stages.len() {
        0 => String::new(),
        n => format!("; it will be given the weights of {n} stages"),
    };
    let agreed = format!("{address} agrees, RTT {rtt_ms:.2} ms without the link{missing}");
    let version = match version == own {
        true => Finding::ok("cloud's version", own),
        false => Finding::warning(
            "cloud's version",
            format!("{version:?}, this edge is {own}"),
            "run the same version on both nodes",
        ),
    };
    let clock = match ahead.abs() > CLOCK_APART_MS {
        false => Finding::ok("cloud's clock", format!("{ahead:+} ms from this one")),
        true => Finding::warning(
            "cloud's clock",
            format!("{ahead:+} ms from this one"),
            "synchronise both (NTP): certificates and traces go by them",
        ),
    };
    vec![Finding::ok("cloud", agreed), version, clock]
}

#[cfg(test)]
mod tests {
    use cleave_shared::doctor::Verdict;

    use super::*;

    fn bound(version: &str) -> Bound {
        let version = version.to_string();
        Bound { missing_stages: vec!["fc".into()], rtt_ms: 1.5, version, wall_clock_ms: 0 }
    }

    #[test]
    fn another_version_and_another_time_are_warned_of() {
        let verdicts = |version, ahead| {
            judged("http://c:1", &bound(version), ahead)
                .iter()
                .map(|f| f.verdict)
                .collect::<Vec<_>>()
        };
        use Verdict::{Ok, Warning};
        assert_eq!(verdicts(env!("CARGO_PKG_VERSION"), -20), [Ok, Ok, Ok]);
        assert_eq!(verdicts("9.9.9", 20_000), [Ok, Warning, Warning]);
        let first = &judged("http://c:1", &bound("1"), 0)[0].found;
        assert!(first.contains("RTT 1.50 ms") && first.contains("weights of 1 stages"), "{first}");
    }
}
