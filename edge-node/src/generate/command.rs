//! `edge-node generate`: continues one sequence of token ids together with the cloud, and reports.

use std::time::{Duration, Instant};

use cleave_shared::{compute::ComputePool, config::Config, link::Link};
use serde::Serialize;
use tokio::sync::watch;
use tokio_stream::StreamExt;

use super::SplitGenerator;
use crate::{
    deploy::Deployer,
    serve::{Event, Finish, Generation, Generator},
    stack,
};

/// What came out, and what it cost.
#[derive(Debug, Serialize)]
pub struct Report {
    pub split_point: usize,
    pub ids: Vec<i64>,
    pub logprobs: Vec<f32>,
    /// `stop` or `length`.
    pub finish: &'static str,
    /// Until the first token, which is the prompt's time, ms.
    pub first_ms: f64,
    /// From the first token to the last, ms.
    pub rest_ms: f64,
    /// Bytes over the link, connection and handshake included.
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
}

/// Generates with the deployment that the configuration asks for; the error is one line.
pub async fn generate(config: &Config, request: Generation) -> Result<Report, String> {
    let link = Link::new(config.link_profile(), config.link.seed);
    let client = stack::client(config, &link)?;
    let pool = ComputePool::new(config.edge.threads, config.edge.queue, config.edge.machine());
    let deployer = Deployer::new(config, client.clone())?;
    let deployment = deployer.deploy(deployer.target(config)?).await?;
    let split_point = deployment.target.split;
    let (_deployed, current) = watch::channel(Some(deployment.into()));
    let generator = SplitGenerator::new(config, current, pool, client);

    let begin = Instant::now();
    let mut events = generator.generate(request).await.map_err(|e| e.to_string())?;
    let (mut ids, mut logprobs, mut first) = (Vec::new(), Vec::new(), Duration::ZERO);
    let finish = loop {
        let next = events.next().await.ok_or("the sequence broke off")?;
        match next.map_err(|e| e.to_string())? {
            Event::Token { id, logprob } => {
                if ids.is_empty() {
                    first = begin.elapsed();
                }
                ids.push(id);
                logprobs.push(logprob);
            }
            Event::End(Finish::Stop) => break "stop",
            Event::End(Finish::Length) => break "length",
        }
    };
    let counted = link.counters();
    Ok(Report {
        split_point,
        ids,
        logprobs,
        finish,
        first_ms: first.as_secs_f64() * 1e3,
        rest_ms: (begin.elapsed() - first).as_secs_f64() * 1e3,
        uplink_bytes: counted.uplink.accepted_bytes,
        downlink_bytes: counted.downlink.accepted_bytes,
    })
}

impl Report {
    /// Ids on one line, figures on the next.
    pub fn render(&self) -> String {
        let ids: Vec<String> = self.ids.iter().map(i64::to_string).collect();
        let count = ids.len();
        let rate = count.saturating_sub(1) as f64 / (self.rest_ms / 1e3).max(1e-9);
        format!(
            "{}\n{count} tokens ({}) at split point {}: the first after {:.1} ms, then {rate:.1} \
             tokens/s; {} bytes up, {} down",
            ids.join(" "),
            self.finish,
            self.split_point,
            self.first_ms,
            self.uplink_bytes,
            self.downlink_bytes,
        )
    }
}
