//! The task that learns, plans and decides.

use std::{sync::Arc, time::Duration};

use cleave_shared::config::Config;
use tokio::sync::watch;

use super::{
    Seen,
    belief::{Belief, News},
    probes::{Probed, Probes, Size},
};
use crate::{
    cloud::CloudClient,
    plan::{self, Choice, Grounds},
};

/// How often calls that are under way are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long to wait before measuring is tried again.
const RETRY: Duration = Duration::from_secs(2);

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
            match plan::grounds(&config, config.plan.request(), true).await {
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
        let found = belief.plan();
        self.planned.send_replace(Some(belief.planned(&found)));
        self.patience.send_replace(belief.patience(&found));
        let mut probes = Probes::new(self.cloud.clone(), &config.plan);
        let probe_bytes = config.plan.probe_bytes as u64;
        loop {
            let probed = tokio::select! {
                _ = self.config.changed() => return,
                probed = probes.ended() => Some(probed),
                () = self.seen.news() => None,
                () = tokio::time::sleep(TICK) => None,
            };
            let news = self.learn(&mut belief, probed);
            if news >= News::Late {
                probes.soon();
            }
            if probes.tick(self.seen.idle(), Size { up: probe_bytes, down: probe_bytes }) {
                belief.forget_load();
            }
            // Plans that agree mean something if each has new facts to stand on.
            if news > News::None {
                belief.tell(news);
                self.decide(&mut belief, &mut probes, news, probe_bytes);
            }
        }
    }

    /// From calls and probes that have ended, and from a call that takes too long.
    fn learn(&self, belief: &mut Belief, probed: Option<Probed>) -> News {
        let ended = self.seen.take().into_iter().map(|event| belief.learn(event));
        let news = ended.max().unwrap_or(News::None);
        let late = self.seen.oldest().map_or(News::None, |call| belief.overdue(call));
        let probed = probed.map_or(News::None, |Probed { confirms, seen }| {
            let news = match seen {
                Some((up, down)) => belief.seen(up, down),
                None => belief.gone(),
            };
            // What it was sent for is decided now.
            if confirms { News::Change } else { news }
        });
        news.max(late).max(probed)
    }

    /// Plans, and switches if that is worth it. On an idle link a switch to more bytes than were seen to cross waits
    /// for a transfer of that size.
    fn decide(&self, belief: &mut Belief, probes: &mut Probes, news: News, down: u64) {
        let found = belief.plan();
        if let Some(choice) = belief.better(&found, news) {
            let idle = news != News::Late && self.seen.oldest().is_none();
            match belief.unproven(&found, &choice).filter(|_| idle) {
                Some(_) if probes.under_way() => {}
                Some(up) => probes.confirm(Size { up, down }),
                None => {
                    let codec = choice.codec.as_deref().unwrap_or("-");
                    tracing::info!(split_point = choice.split, codec, "planned anew");
                    belief.switch(choice);
                    self.planned.send_replace(Some(belief.planned(&found)));
                }
            }
        }
        self.patience.send_replace(belief.patience(&found));
    }
}
