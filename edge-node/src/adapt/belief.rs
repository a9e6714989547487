//! What is believed of the link and of the cloud's load, and the choice that follows from it.

use std::time::Duration;

use cleave_shared::config::Config;

use super::{Call, Event, HeadRun, Planned, UnderWay, probes::GONE_MS};
use crate::{
    plan::{
        Choice, Estimate, Grounds, Limits, Network, Observation, Plan, Predicted, Steady, plan,
    },
    serve::Timing,
};

/// Weight of a new value in what is believed of the load of both nodes.
const GAIN: f64 = 0.25;
/// A head or a tail below this tells nothing about its node's speed, ms.
const VISIBLE_MS: f64 = 0.5;
/// How much of what is believed of the edge's load is forgotten with each request that does not tell.
const FORGOTTEN: f64 = 0.02;
/// Links that may come: rates relative to now.
const SCENARIOS: [f64; 5] = [0.01, 0.1, 0.33, 3.0, 10.0];
/// As far as a rate may be from what a small transfer tells of it.
const HOPES: [f64; 2] = [3.0, 10.0];
/// A call that is late tells how slow the link is at least. What hides a beam takes 20 to 30 dB, so the rate is
/// taken for this part of what it is at most, until a transfer has ended.
const PESSIMISM: f64 = 0.1;
/// An answer that takes this many times as long as predicted is late, or this part of what the whole model takes
/// here, if that is longer: less is no loss worth a switch.
const LATE: f64 = 1.5;
const LATE_OF_WHOLE: f64 = 0.25;
/// Transfers of this many times as many bytes as were seen can be foretold.
const FORESEEN: u64 = 2;

/// What was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    None,
    /// More of what was known.
    Some,
    /// The link is worse, and nobody knows yet how much.
    Late,
    /// The link or the load is not what it was.
    Change,
}

impl News {
    fn of(changed: bool) -> Self {
        if changed { News::Change } else { News::Some }
    }
}

/// All that is believed.
pub(super) struct Belief {
    grounds: Grounds,
    estimate: Estimate,
    /// With what is known of the cloud's load.
    limits: Limits,
    steady: Steady,
}

impl Belief {
    /// None if nothing is allowed.
    pub fn new(config: &Config, grounds: Grounds, before: Option<&Planned>) -> Option<Self> {
        let limits = grounds.limits(config);
        let found = grounds.plan(config);
        let best = found.best()?;
        let hysteresis = config.plan.hysteresis;
        // What was in force stays there if it is as good.
        let kept = before.and_then(|b| found.find(&b.choice)).filter(|own| own.forbidden.is_none());
        let kept = kept.filter(|own| Steady::may_stay(own.score, best.score, hysteresis));
        let first = kept.unwrap_or(best).choice.clone();
        let estimate = Estimate::new(grounds.network.clone(), config.plan.is_cold());
        let steady = Steady::new(first, hysteresis);
        Some(Self { grounds, estimate, limits, steady })
    }

    pub fn learn(&mut self, event: Event) -> News {
        match event {
            Event::Failed => self.gone(),
            Event::Answered(call) => self.answered(call),
            Event::Left(call) => self.overdue(call),
            Event::Computed(run) => self.computed(run),
        }
    }

    /// A call that has no answer yet says something if it should have one.
    pub fn overdue(&mut self, call: UnderWay) -> News {
        let UnderWay { split, uplink_bytes: bytes, ms, fresh } = call;
        let tail = self.limits.tail_factor * self.usual_tail_ms(split) + self.limits.queue_ms;
        let back = self.estimate.downlink_ms(self.grounds.costs.output_bytes);
        // All that is missing is laid to the uplink: it has the most bytes.
        let ms = ms - tail - back;
        let whole =
            self.grounds.costs.head_ms.last().map_or(0.0, |ms| ms * self.limits.head_factor);
        let matters = ms > LATE_OF_WHOLE * whole;
        match matters && self.estimate.overdue(Observation { bytes, ms, fresh }) {
            true => News::Late,
            false => News::None,
        }
    }

    fn answered(&mut self, call: Call) -> News {
        let usual = self.usual_tail_ms(call.split);
        if usual > VISIBLE_MS && self.is_usual(call.output_bytes) {
            let factor = &mut self.limits.tail_factor;
            *factor += GAIN * (call.tail_ms / usual - *factor);
        }
        self.limits.queue_ms += GAIN * (call.queue_ms - self.limits.queue_ms);
        // What the host adds is not the link's.
        let host = self.grounds.host.ms(call.uplink_bytes + call.downlink_bytes) / 2.0;
        let of_link = |ms: f64| (ms - host).max(0.1 * ms);
        let (bytes, fresh) = (call.uplink_bytes, call.fresh);
        self.seen(
            Observation { bytes, ms: of_link(call.uplink_ms), fresh },
            Observation::new(call.downlink_bytes, of_link(call.downlink_ms)),
        )
    }

    /// Learns from an exchange that has ended.
    pub fn seen(&mut self, up: Observation, down: Observation) -> News {
        let changed = self.estimate.uplink(up);
        News::of(self.estimate.downlink(down) | changed)
    }

    /// How busy this edge is, or how much it throttles.
    fn computed(&mut self, HeadRun { split, ms, output_bytes }: HeadRun) -> News {
        let usual = self.grounds.costs.head_ms.get(split).copied().unwrap_or(0.0);
        let comparable = self.is_usual(output_bytes);
        let factor = &mut self.limits.head_factor;
        if usual <= VISIBLE_MS {
            *factor += FORGOTTEN * (1.0 - *factor);
        }
        if usual <= VISIBLE_MS || !comparable {
            return News::None;
        }
        *factor += GAIN * (ms / usual - *factor);
        // Where calls are made they bring the news, of the link as well.
        match self.steady.current().codec {
            Some(_) => News::None,
            None => News::Some,
        }
    }

    /// Whether a request has the size of those that are planned for.
    fn is_usual(&self, output_bytes: u64) -> bool {
        self.grounds.costs.output_bytes == output_bytes
    }

    /// As it was measured.
    fn usual_tail_ms(&self, split: usize) -> f64 {
        self.grounds.costs.tail_ms.get(split).copied().unwrap_or(0.0)
    }

    /// No answer will come.
    pub fn gone(&mut self) -> News {
        News::of(self.estimate.uplink(Observation::new(1, GONE_MS)))
    }

    /// Nobody has used the cloud for a while.
    pub fn forget_load(&mut self) {
        self.limits.forget();
    }

    /// As things are, as far as is known.
    pub fn plan(&self) -> Plan {
        self.plan_on(&self.estimate.network())
    }

    fn plan_on(&self, network: &Network) -> Plan {
        plan(&self.grounds.costs, network, self.grounds.host, &self.limits)
    }

    /// Another choice, if it is time for one. `found`: the plan as things are.
    pub fn better(&mut self, found: &Plan, news: News) -> Option<Choice> {
        match news {
            News::Late => {
                let feared = self.plan_on(&self.estimate.network().at_rate(PESSIMISM));
                self.steady.consider(&feared, true)
            }
            _ => self.steady.consider(found, news == News::Change),
        }
    }

    /// Bytes of a transfer that would tell whether this choice is as good as predicted, and those as well that would
    /// be better if it were too low a guess; none if that is known. `found`: the plan as things are.
    pub fn unproven(&self, found: &Plan, choice: &Choice) -> Option<u64> {
        let most = self.limits.config.confirm_bytes as u64;
        let known = FORESEEN * self.estimate.largest_uplink();
        let own = found.find(choice).filter(|own| own.bytes.min(most) > known)?;
        let network = self.estimate.network();
        let plans = HOPES.map(|factor| self.plan_on(&network.at_rate(factor)));
        let bytes = plans.iter().filter_map(|plan| Some(plan.best()?.bytes));
        Some(bytes.fold(own.bytes, u64::max).min(most))
    }

    pub fn switch(&mut self, choice: Choice) {
        self.steady.switch(choice);
    }

    /// How long an answer may be awaited: by then one that comes after all has not saved much. `found`: the plan
    /// as things are.
    pub fn patience(&self, found: &Plan) -> Option<Duration> {
        let own = found.find(self.steady.current()).filter(|own| own.choice.codec.is_some())?;
        let Timing { uplink_ms, tail_ms, downlink_ms, .. } = own.timing;
        let whole = found_whole(found)?.latency_ms();
        let ms = (LATE * (uplink_ms + tail_ms + downlink_ms)).max(LATE_OF_WHOLE * whole);
        Some(Duration::from_secs_f64(ms.min(GONE_MS) / 1e3))
    }

    /// The choice, and those that links which may come would make the best. `found`: the plan as things are.
    pub fn planned(&self, found: &Plan) -> Planned {
        let choice = self.steady.current().clone();
        let network = self.estimate.network();
        let mut likely: Vec<Choice> = Vec::new();
        for factor in SCENARIOS {
            let found = self.plan_on(&network.at_rate(factor));
            let best = found.best().map(|p| p.choice.clone());
            likely.extend(best.filter(|b| *b != choice && !likely.contains(b)));
        }
        // Whatever happens to the link, the whole model here can answer, if it may be here.
        let whole = found_whole(found).map(|p| p.choice.clone());
        likely.extend(whole.filter(|w| *w != choice && !likely.contains(w)));
        Planned { choice, likely }
    }

    /// For the log.
    pub fn tell(&self, news: News) {
        let Limits { head_factor, tail_factor, queue_ms, .. } = self.limits;
        tracing::debug!(?news, head_factor, tail_factor, queue_ms, link = %self.estimate, "learned");
    }
}

/// All on the edge, if the limits allow it; a deadline is no reason not to have it at hand.
fn found_whole(found: &Plan) -> Option<&Predicted> {
    found.all.iter().find(|p| p.choice.codec.is_none() && p.fits)
}
