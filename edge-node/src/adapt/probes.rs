//! Transfers of the adapter's own: when an idle link is probed, and what becomes of it.

use std::{
    future,
    time::{Duration, Instant},
};

use cleave_shared::config::PlanConfig;
use futures_util::{FutureExt, future::BoxFuture};

use crate::{cloud::CloudClient, plan::Observation};

/// When a change is looked at again.
const SOON: Duration = Duration::from_millis(200);
/// What a probe that fails is taken for, ms.
pub(super) const GONE_MS: f64 = 60_000.0;

/// One exchange, of this many bytes each way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub up: u64,
    pub down: u64,
}

/// How a probe ended.
pub(super) struct Probed {
    /// Whether it was to confirm a choice.
    pub confirms: bool,
    /// Up and down; none if there was no answer.
    pub seen: Option<(Observation, Observation)>,
}

/// When an idle link is probed: soon after a change, since it may have been a moment's, and then after twice
/// as long each time, up to the interval. At most one is under way.
pub(super) struct Probes {
    cloud: CloudClient,
    /// Whether requests find TCP's window open, so that it has to be opened first.
    warm: bool,
    /// What a transfer finds after it is what requests find.
    pause: Duration,
    interval: Duration,
    next: Duration,
    last: Instant,
    under_way: Option<BoxFuture<'static, Probed>>,
}

impl Probes {
    pub fn new(cloud: CloudClient, plan: &PlanConfig) -> Self {
        let interval = Duration::from_secs(plan.probe_interval_s);
        let (warm, pause, last) = (!plan.is_cold(), plan.pause(), Instant::now());
        Self { cloud, warm, pause, interval, next: interval, last, under_way: None }
    }

    pub fn soon(&mut self) {
        self.next = SOON.max(self.pause).min(self.interval);
        self.last = Instant::now();
    }

    /// Sends one if it is time for it, and says so; `idle`: since the last call, if there was one.
    pub fn tick(&mut self, idle: Option<Duration>, size: Size) -> bool {
        let due = self.last.elapsed() >= self.next && idle.is_none_or(|idle| idle >= self.next);
        if !due || self.under_way() {
            return false;
        }
        self.next = (2 * self.next).min(self.interval);
        self.under_way = Some(self.exchange(size).map(probed(false)).boxed());
        true
    }

    /// Sends one that is to tell whether a choice is as good as predicted.
    pub fn confirm(&mut self, size: Size) {
        let (pause, exchange) = (self.pause, self.exchange(size));
        let then = async move {
            tokio::time::sleep(pause).await;
            exchange.await
        };
        self.under_way = Some(then.map(probed(true)).boxed());
    }

    pub fn under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Waits for the one that is under way; for ever if none is.
    pub async fn ended(&mut self) -> Probed {
        let Some(probe) = &mut self.under_way else { return future::pending().await };
        let probed = probe.await;
        self.under_way = None;
        self.last = Instant::now();
        probed
    }

    /// None if there is no answer.
    fn exchange(
        &self,
        Size { up, down }: Size,
    ) -> impl Future<Output = Option<(Observation, Observation)>> + Send + use<> {
        let (cloud, warm) = (self.cloud.clone(), self.warm);
        let exchange = async move {
            if warm {
                cloud.probe(up as usize, down as usize).await?;
            }
            cloud.probe(up as usize, down as usize).await
        };
        let limit = Duration::from_millis(GONE_MS as u64);
        tokio::time::timeout(limit, exchange).map(move |took| {
            let (there, back) = took.ok()?.ok()?;
            Some((Observation::new(up, there), Observation::new(down, back)))
        })
    }
}

fn probed(confirms: bool) -> impl FnOnce(Option<(Observation, Observation)>) -> Probed {
    move |seen| Probed { confirms, seen }
}
