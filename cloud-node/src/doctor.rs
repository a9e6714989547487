//! `cloud-node doctor`: what both nodes look at, and where this one listens.

use std::{net::SocketAddr, sync::Arc};

use cleave_shared::{
    config::{Config, ConfigArgs},
    doctor::{self, Address, Finding},
    health,
    security::Tokens,
};

/// All checks, in the order in which what they look at is needed.
pub async fn examine(args: &ConfigArgs) -> Vec<Finding> {
    let (config, found) = match doctor::configuration(args) {
        Ok(both) => both,
        // Nothing else means anything without it.
        Err(wrong) => return vec![wrong],
    };
    let mut findings = vec![
        found,
        doctor::model(&config),
        doctor::machine(&config, config.cloud.threads, config.cloud.kernel_threads),
        doctor::folder("runs", "runs.dir", &config.runs.dir),
        weights(&config),
    ];
    findings.extend(doctor::identity(&config));
    findings.extend(tokens(&config));
    findings.push(port(&config, "cloud.listen", config.cloud.listen).await);
    if let Some(metrics) = config.cloud.metrics_listen {
        findings.push(port(&config, "cloud.metrics_listen", metrics).await);
    }
    findings
}

/// Those of a tail: edges name them, and those of a run come from the edge.
fn weights(config: &Config) -> Finding {
    let library = config.runs.open("cloud").and_then(|store| config.library(Arc::new(store)));
    match library {
        Err(problem) => Finding::error("weights", problem),
        Ok(library) => {
            let stages = config.split().min(config.model.stage_count())..config.model.stage_count();
            doctor::weights(&library, &library.initial(config.seed), stages)
        }
    }
}

fn tokens(config: &Config) -> Option<Finding> {
    let file = config.security.tokens.clone()?;
    let shown = file.display().to_string();
    Some(match Tokens::read(file) {
        Ok(_) => Finding::ok("tokens", shown),
        Err(error) => Finding::error("tokens", format!("security.tokens: {error}")),
    })
}

/// An address that the cloud listens on: free, or a cloud's that serves already.
async fn port(config: &Config, key: &str, at: SocketAddr) -> Finding {
    const CHECK: &str = "port";
    let taken = match doctor::address(at) {
        Address::Free => return Finding::ok(CHECK, format!("{key}: {at} is free")),
        Address::Unusable(problem) => {
            return Finding::error(CHECK, format!("{key}: {at}: {problem}"))
                .with_advice("set an address of this machine");
        }
        Address::Taken => format!("{key}: {at} is in use"),
    };
    let healthy = match config.security.files() {
        Some(files) => health::check_secure(config.cloud.listen, files).await,
        None => health::check(config.cloud.listen).await,
    };
    match healthy {
        Ok(()) => Finding::ok(CHECK, format!("{taken}, and a cloud serves there")),
        Err(_) => Finding::error(CHECK, taken)
            .with_advice(format!("end what listens there, or set {key} to another address")),
    }
}
