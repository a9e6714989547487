//! The task that learns, plans and decides.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cleave_shared::config::{Config, PlanConfig};
use tokio::sync::watch;

use super::{Call, Event, Seen, UnderWay};
use crate::{
    cloud::CloudClient,
    plan::{
        Choice, Estimate, Grounds, Limits, Network, Observation, Plan, Predicted, Steady, grounds,
        plan,
    },
    serve::Timing,
};

/// How often calls that are under way are looked at.
const TICK: Duration = Duration::from_millis(50);
/// When a change is looked at again.
const SOON: Duration = Duration::from_millis(200);
/// How long to wait before measuring is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Weight of a new value in what is believed of the cloud's load.
const GAIN: f64 = 0.25;
/// A tail below this tells nothing about the cloud's speed, ms.
const VISIBLE_MS: f64 = 0.5;
/// Links that may come: rates relative to now.
const SCENARIOS: [f64; 5] = [0.01, 0.1, 0.33, 3.0, 10.0];
/// An answer that takes this many times as long as predicted is late.
const LATE: f64 = 1.5;
/// TCP's window has fallen back after a silence of so many ms (RFC 6298's least timeout is 1 s, Linux' 200 ms).
const COLD_MS: u64 = 200;
/// What a probe that fails is taken for, ms.
const GONE_MS: f64 = 60_000.0;

/// What is to be deployed, and what may be soon.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub choice: Choice,
    pub likely: Vec<Choice>,
}

/// Plans for as long as the configuration in force says `"auto"`.
pub struct Adapter {
    pub cloud: CloudClient,
    pub seen: Arc<Seen>,
    /// The configuration in force.
    pub config: watch::Receiver<Config>,
    pub planned: watch::Sender<Option<Planned>>,
    /// How long an answer may be awaited before the edge begins to make it itself; none without a plan.
    pub patience: watch::Sender<Option<Duration>>,
}

impl Adapter {
    /// Runs for the life of the node.
    pub async fn run(mut self) {
        loop {
            if self.config.wait_for(|c| c.split_point.is_auto()).await.is_err() {
                return;
            }
            let config = self.config.borrow_and_update().clone();
            match grounds(&config, config.plan.request()).await {
                Ok(grounds) => {
                    self.adapt(config, grounds).await;
                    self.patience.send_replace(None);
                }
                Err(error) => {
                    tracing::warn!("split_point = \"auto\" has nothing to plan with yet: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Until the configuration changes.
    async fn adapt(&mut self, config: Config, grounds: Grounds) {
        let Some(mut belief) = Belief::new(&config, grounds, self.planned.borrow().as_ref()) else {
            tracing::error!("split_point = \"auto\": [plan]'s limits forbid every choice");
            let _ = self.config.changed().await;
            return;
        };
        let found = belief.plan(&belief.estimate.network());
        self.planned.send_replace(Some(belief.planned(&found)));
        self.patience.send_replace(belief.patience(&found));
        let mut probes = Probes::new(Duration::from_secs(config.plan.probe_interval_s));
        loop {
            tokio::select! {
                _ = self.config.changed() => return,
                () = self.seen.news() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            let mut news = self.learn(&mut belief);
            if probes.due(self.seen.idle()) {
                news = news.max(self.probe(&mut belief, &config.plan).await);
            }
            if news == News::Change {
                probes.soon();
            }
            // Plans that agree mean something if each has new facts to stand on.
            if news == News::None {
                continue;
            }
            let Limits { tail_factor, queue_ms, .. } = belief.limits;
            tracing::debug!(?news, tail_factor, queue_ms, link = %belief.estimate, "learned");
            let found = belief.plan(&belief.estimate.network());
            if let Some(choice) = belief.steady.consider(&found, news == News::Change) {
                let codec = choice.codec.as_deref().unwrap_or("-");
                tracing::info!(split_point = choice.split, codec, "planned anew");
                self.planned.send_replace(Some(belief.planned(&found)));
            }
            self.patience.send_replace(belief.patience(&found));
        }
    }

    /// From calls that have ended, and from one that takes too long.
    fn learn(&self, belief: &mut Belief) -> News {
        let ended = self.seen.take().into_iter().map(|event| belief.learn(event));
        let news = ended.max().unwrap_or(News::None);
        let late = self.seen.oldest().map(|call| belief.overdue(call));
        news.max(late.unwrap_or(News::None))
    }

    /// Learns from a transfer of its own. Where requests come one upon the other, so do probes: the first only
    /// opens TCP's window.
    async fn probe(&self, belief: &mut Belief, plan: &PlanConfig) -> News {
        let limit = Duration::from_millis(GONE_MS as u64);
        belief.limits.forget();
        let bytes = plan.probe_bytes;
        let probes = async {
            if plan.pause_ms < COLD_MS {
                self.cloud.probe(bytes, bytes).await?;
            }
            self.cloud.probe(bytes, bytes).await
        };
        match tokio::time::timeout(limit, probes).await {
            Ok(Ok((up, down))) => {
                let bytes = bytes as u64;
                let changed = belief.estimate.uplink(Observation { bytes, ms: up });
                News::of(belief.estimate.downlink(Observation { bytes, ms: down }) | changed)
            }
            _ => belief.gone(),
        }
    }
}

/// What was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    /// More of what was known.
    Some,
    /// The link or the load is not what it was.
    Change,
}

impl News {
    fn of(changed: bool) -> Self {
        if changed { News::Change } else { News::Some }
    }
}

/// When an idle link is probed: soon after a change, since it may have been a moment's, and then after twice
/// as long each time, up to the interval.
struct Probes {
    interval: Duration,
    next: Duration,
    last: Instant,
}

impl Probes {
    fn new(interval: Duration) -> Self {
        Self { interval, next: interval, last: Instant::now() }
    }

    fn soon(&mut self) {
        self.next = SOON.min(self.interval);
        self.last = Instant::now();
    }

    /// Whether it is time for one, which is counted as sent; `idle`: since the last call, if there was one.
    fn due(&mut self, idle: Option<Duration>) -> bool {
        let due = self.last.elapsed() >= self.next && idle.is_none_or(|idle| idle >= self.next);
        if due {
            self.next = (2 * self.next).min(self.interval);
            self.last = Instant::now();
        }
        due
    }
}

/// All on the edge, if the limits allow it; a deadline is no reason not to have it at hand.
fn found_whole(found: &Plan) -> Option<&Predicted> {
    found.all.iter().find(|p| p.choice.codec.is_none() && p.fits)
}

/// All that is believed, and the choice that follows from it.
struct Belief {
    grounds: Grounds,
    estimate: Estimate,
    /// With what is known of the cloud's load.
    limits: Limits,
    steady: Steady,
}

impl Belief {
    /// None if nothing is allowed.
    fn new(config: &Config, grounds: Grounds, before: Option<&Planned>) -> Option<Self> {
        let limits = grounds.limits(config);
        let found = grounds.plan(config);
        let best = found.best()?;
        let hysteresis = config.plan.hysteresis;
        // What was in force stays there if it is as good.
        let kept = before.and_then(|b| found.find(&b.choice)).filter(|own| own.forbidden.is_none());
        let kept = kept.filter(|own| Steady::may_stay(own.score, best.score, hysteresis));
        let first = kept.unwrap_or(best).choice.clone();
        let estimate = Estimate::new(grounds.network.clone());
        let steady = Steady::new(first, hysteresis);
        Some(Self { grounds, estimate, limits, steady })
    }

    fn learn(&mut self, event: Event) -> News {
        match event {
            Event::Failed => self.gone(),
            Event::Answered(call) => self.answered(call),
            Event::Left(call) => self.overdue(call),
        }
    }

    /// A call that has no answer yet says something if it should have one.
    fn overdue(&mut self, call: UnderWay) -> News {
        let UnderWay { split, uplink_bytes: bytes, ms } = call;
        let tail = self.limits.tail_factor * self.usual_tail_ms(split) + self.limits.queue_ms;
        let back = self.estimate.network().down.ms(self.grounds.costs.output_bytes);
        // All that is missing is laid to the uplink: it has the most bytes.
        match self.estimate.overdue(Observation { bytes, ms: ms - tail - back }) {
            true => News::Change,
            false => News::None,
        }
    }

    fn answered(&mut self, call: Call) -> News {
        let usual = self.usual_tail_ms(call.split);
        if usual > VISIBLE_MS {
            let factor = &mut self.limits.tail_factor;
            *factor += GAIN * (call.tail_ms / usual - *factor);
        }
        self.limits.queue_ms += GAIN * (call.queue_ms - self.limits.queue_ms);
        // What the host adds is not the link's.
        let host = self.grounds.host.ms(call.uplink_bytes + call.downlink_bytes) / 2.0;
        let seen = |bytes, ms: f64| Observation { bytes, ms: (ms - host).max(0.1 * ms) };
        let up = self.estimate.uplink(seen(call.uplink_bytes, call.uplink_ms));
        News::of(self.estimate.downlink(seen(call.downlink_bytes, call.downlink_ms)) | up)
    }

    /// As it was measured.
    fn usual_tail_ms(&self, split: usize) -> f64 {
        self.grounds.costs.tail_ms.get(split).copied().unwrap_or(0.0)
    }

    fn gone(&mut self) -> News {
        News::of(self.estimate.uplink(Observation { bytes: 1, ms: GONE_MS }))
    }

    fn plan(&self, network: &Network) -> Plan {
        plan(&self.grounds.costs, network, self.grounds.host, &self.limits)
    }

    /// Half as long again as the answer should take, and at least half of what it takes to make it here: by then an
    /// answer that comes after all has not saved much. `found`: the plan as things are.
    fn patience(&self, found: &Plan) -> Option<Duration> {
        let own = found.find(self.steady.current()).filter(|own| own.choice.codec.is_some())?;
        let Timing { uplink_ms, tail_ms, downlink_ms, .. } = own.timing;
        let whole = found_whole(found)?.latency_ms();
        let ms = (LATE * (uplink_ms + tail_ms + downlink_ms)).max(0.5 * whole);
        Some(Duration::from_secs_f64(ms.min(GONE_MS) / 1e3))
    }

    /// The choice, and those that links which may come would make the best. `found`: the plan as things are.
    fn planned(&self, found: &Plan) -> Planned {
        let choice = self.steady.current().clone();
        let network = self.estimate.network();
        let mut likely: Vec<Choice> = Vec::new();
        for factor in SCENARIOS {
            let found = self.plan(&network.at_rate(factor));
            let best = found.best().map(|p| p.choice.clone());
            likely.extend(best.filter(|b| *b != choice && !likely.contains(b)));
        }
        // Whatever happens to the link, the whole model here can answer, if it may be here.
        let whole = found_whole(found).map(|p| p.choice.clone());
        likely.extend(whole.filter(|w| *w != choice && !likely.contains(w)));
        Planned { choice, likely }
    }
}
