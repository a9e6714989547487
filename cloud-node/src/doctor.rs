//! `cloud-node doctor`: what both nodes look at, and where this one listens.

use std::{net::SocketAddr, sync::Arc};

use cleave_shared::{
    config::{Config, ConfigArgs},
    doctor::{self, Finding},
    health,
    security::Tokens,
};

/// All checks, in the order in which what they look at is needed.
pub async fn examine(args: &ConfigArgs) -> Vec<Finding> {
    let threads = |config: &Config| (config.cloud.threads, config.cloud.kernel_threads);
    let (config, mut findings) = match doctor::begin(args, threads) {
        Ok(begun) => begun,
        Err(wrong) => return vec![wrong],
    };
    findings.push(weights(&config));
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

/// An address that the cloud listens on.
async fn port(config: &Config, key: &str, at: SocketAddr) -> Finding {
    let healthy = async {
        match config.security.files() {
            Some(files) => health::check_secure(config.cloud.listen, files).await,
            None => health::check(config.cloud.listen).await,
        }
    };
    doctor::port(key, at, "a cloud", healthy).await
}
