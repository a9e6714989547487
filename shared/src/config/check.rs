//! Ranges: what a value may be beyond its type.

use std::{fmt::Display, ops::RangeInclusive};

use http::Uri;

use super::{Config, MicroBatches};
use crate::{
    checkpoint::check_url,
    codec::{self, LearnedName},
    model::LossKind,
    security,
    telemetry::log,
    tensor::DType,
};

/// The path of a bad key, and what is wrong with its value.
pub(super) type Refusal = (String, String);

impl Config {
    /// The first value that is out of range.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.model.check().map_err(|problem| ("model".into(), problem))?;
        self.check_split()?;
        self.check_codec()?;
        self.check_cloud()?;
        self.check_edge()?;
        self.check_exits()?;
        if let Some(url) = &self.runs.store {
            check_url(url).map_err(|problem| ("runs.store".into(), problem))?;
        }
        self.security.check()?;
        self.plan.check(self.model.stage_count())?;
        self.check_trace()?;
        log::check_level(&self.log.level).map_err(|problem| ("log.level".into(), problem))?;
        self.check_train()
    }

    fn check_trace(&self) -> Result<(), Refusal> {
        if let Some(endpoint) = &self.trace.otlp {
            let collector = check_address("trace.otlp", endpoint)?;
            let checked = security::check_collector(&collector, &self.security.plaintext);
            checked.map_err(|problem| ("trace.otlp".into(), problem))?;
        }
        match (0.0..=1.0).contains(&self.trace.share) {
            true => Ok(()),
            false => Err(("trace.share".into(), "is not from 0 to 1".into())),
        }
    }

    fn check_split(&self) -> Result<(), Refusal> {
        let (stages, family) = (self.model.stage_count() as u64, self.model.family_name());
        range("split_point", self.split() as u64, 0..=stages)
            .map_err(|(key, problem)| (key, format!("{problem}, the stages of this {family}")))
    }

    fn check_codec(&self) -> Result<(), Refusal> {
        let codec = &self.codec;
        for (key, name) in [("activation", &codec.activation), ("gradient", &codec.gradient)] {
            let parsed = match LearnedName::is_meant(name) && key == "activation" {
                true => name.parse::<LearnedName>().map(|_| ()),
                false => codec::by_name(name).map(|_| ()).map_err(|error| error.to_string()),
            };
            parsed.map_err(|problem| (format!("codec.{key}"), problem))?;
        }
        codec.allowed.iter().try_for_each(|name| one_of("codec.allowed", name, &codec::FAMILIES))
    }

    fn check_cloud(&self) -> Result<(), Refusal> {
        let cloud = &self.cloud;
        range("cloud.threads", cloud.threads as u64, 1..=1024)?;
        range("cloud.kernel_threads", cloud.kernel_threads as u64, 0..=1024)?;
        range("cloud.queue", cloud.queue as u64, 1..=1_000_000)?;
        range("cloud.max_batch", cloud.max_batch as u64, 1..=65_536)?;
        range("cloud.batch_delay_ms", cloud.batch_delay_ms, 0.0..=1000.0)?;
        let most = 1 << 40;
        range("cloud.max_activation_bytes", cloud.max_activation_bytes as u64, 1024..=most)?;
        range("cloud.max_tails", cloud.max_tails as u64, 1..=1024)?;
        range("cloud.max_runs", cloud.max_runs as u64, 1..=100_000)?;
        range("cloud.max_sessions", cloud.max_sessions as u64, 1..=1_000_000)?;
        range("cloud.max_cache_bytes", cloud.max_cache_bytes as u64, 1024..=most)?;
        range("cloud.session_idle_s", cloud.session_idle_s, 1..=86_400)
    }

    fn check_edge(&self) -> Result<(), Refusal> {
        let edge = &self.edge;
        check_address("edge.cloud", &edge.cloud)?;
        for cloud in &edge.standby {
            check_address("edge.standby", cloud)?;
        }
        let name = &edge.model_name;
        if name.is_empty() || name.len() > 64 || name.chars().any(|c| c == '/' || c.is_whitespace())
        {
            let problem = format!("{name:?}: allowed: 1 to 64 characters without '/' and blanks");
            return Err(("edge.model_name".into(), problem));
        }
        range("edge.max_batch", edge.max_batch as u64, 1..=1 << 24)?;
        range("edge.max_tokens", edge.max_tokens as u64, 1..=1 << 24)?;
        range("edge.threads", edge.threads as u64, 1..=1024)?;
        range("edge.kernel_threads", edge.kernel_threads as u64, 0..=1024)?;
        range("edge.retries", u64::from(edge.retries), 0..=20)?;
        range("edge.compute_scale", edge.compute_scale, 1.0..=1000.0)?;
        range("edge.queue", edge.queue as u64, 1..=1_000_000)?;
        range("edge.micro_batch", edge.micro_batch as u64, 1..=65_536)?;
        range("edge.micro_batch_delay_ms", edge.micro_batch_delay_ms, 0.0..=1000.0)?;
        range("edge.max_sessions", edge.max_sessions as u64, 1..=1_000_000)?;
        range("edge.max_cache_bytes", edge.max_cache_bytes as u64, 1024..=1 << 40)?;
        range("edge.session_idle_s", edge.session_idle_s, 1..=86_400)?;
        range("edge.deadline_ms", edge.deadline_ms, 1..=3_600_000)
    }

    fn check_exits(&self) -> Result<(), Refusal> {
        range("exits.threshold", self.exits.threshold, 0.0..=1.0)
    }

    fn check_topology(&self) -> Result<(), Refusal> {
        let (topology, stages) = (&self.train.topology, self.model.stage_count());
        let refusal = |(key, problem)| (format!("train.topology.{key}"), problem);
        topology.check().map_err(refusal)?;
        if topology.kind.is_group() {
            let group = self.train.spec().check_group();
            group.map_err(|(key, problem)| (format!("train.{key}"), problem))?;
            range("split_point", self.split() as u64, 1..=stages as u64 - 1)?;
        }
        match topology.last_split {
            None => Ok(()),
            Some(last) => {
                let between = self.split() as u64 + 1..=stages as u64 - 1;
                range("train.topology.last_split", last as u64, between)
            }
        }
    }

    fn check_train(&self) -> Result<(), Refusal> {
        let train = &self.train;
        range("train.epochs", train.epochs, 1..=1_000_000)?;
        if train.loss == LossKind::Distillation {
            let problem = "\"distillation\" is of edge-node bottleneck train, which sets it itself";
            return Err(("train.loss".into(), problem.into()));
        }
        range("train.batch_size", train.batch_size as u64, 1..=1 << 20)?;
        if let MicroBatches::Fixed(n) = train.micro_batches {
            range("train.micro_batches", u64::from(n), 1..=4096)?;
        }
        train.optimizer.check().map_err(|problem| ("train.optimizer".into(), problem))?;
        let schedule = train.schedule.check();
        schedule.map_err(|(key, problem)| (format!("train.schedule.{key}"), problem))?;
        self.check_topology()?;
        let extras = train.spec().check_extras();
        extras.map_err(|(key, problem)| (format!("train.{key}"), problem))?;
        self.check_privacy()?;
        range("train.checkpoint_every", train.checkpoint_every, 1..=1_000_000_000)?;
        // Two: one side may lose its newest while the other already has it.
        range("train.keep_checkpoints", train.keep_checkpoints as u64, 2..=1_000_000)?;
        range("train.step_timeout_s", train.step_timeout_s, 1..=86_400)?;
        range("train.reconnect_timeout_s", train.reconnect_timeout_s, 0..=86_400)
    }

    fn check_privacy(&self) -> Result<(), Refusal> {
        let Some(privacy) = &self.train.privacy else { return Ok(()) };
        let numeric = self.model.inputs().iter().any(|port| port.dtype == DType::F32);
        if privacy.nopeek_alpha.is_some() && !numeric {
            let family = self.model.family_name();
            let problem = format!("the inputs of a {family} are no numbers: leave it out");
            return Err(("train.privacy.nopeek_alpha".into(), problem));
        }
        // It sends the first step in several cuts. With running statistics the same sample is another
        // activation in each, under the same noise, which their difference would be free of.
        if privacy.noise_multiplier.is_some() && self.train.micro_batches == MicroBatches::Auto {
            let problem = "\"auto\" sends a step several times: with noise give a number";
            return Err(("train.micro_batches".into(), problem.into()));
        }
        Ok(())
    }
}

pub(super) fn range<N: PartialOrd + Display>(
    key: &str,
    value: N,
    allowed: RangeInclusive<N>,
) -> Result<(), Refusal> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (low, high) = (allowed.start(), allowed.end());
    Err((key.into(), format!("{value} is out of range; allowed: {low} to {high}")))
}

pub(super) fn not_negative(key: &str, value: f64) -> Result<(), Refusal> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err((key.into(), format!("{value} is out of range; allowed: 0 or more")))
}

fn check_address(key: &str, address: &str) -> Result<Uri, Refusal> {
    let fits =
        |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.port().is_some();
    address.parse().ok().filter(fits).ok_or_else(|| {
        let allowed = "http://HOST:PORT, https://HOST:PORT";
        (key.into(), format!("{address:?} is not an address; allowed: {allowed}"))
    })
}

fn one_of(key: &str, value: &str, allowed: &[&str]) -> Result<(), Refusal> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err((key.into(), format!("{value:?} is unknown; allowed: {}", allowed.join(", "))))
}
