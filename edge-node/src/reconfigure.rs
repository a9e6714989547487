//! Takes changes of the configuration file, of the deployed weights and of the plan into force while
//! serving.
//!
//! Settings that someone asks for while the edge serves ([`Wish`]) go the same way: they are part of the configuration
//! that is read.
//!
//! Both files are watched through their folders, since editors and [`write_atomic`] replace a file
//! rather than write into it. File systems without notifications (network mounts, some containers)
//! are covered by a look every second.
//!
//! [`write_atomic`]: cleave_shared::checkpoint::write_atomic

mod wishes;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cleave_shared::{
    config::{Config, ConfigArgs, Fallback, LogConfig, PROFILES},
    link::Link,
    stamp::Stamp,
};
use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use self::wishes::Wishes;
pub use self::wishes::{QUEUE, Setting, Unfulfilled, Wish, ask};
use crate::{
    adapt::Planned,
    deploy::{Deployer, Deployment, Pointer, Ready, Target},
    plan::Choice,
};

/// How often files are looked at without a notification, and how often a failed change is retried.
const TICK: Duration = Duration::from_secs(1);
/// How soon before anything is deployed: a cloud that was started at the same time needs a moment. Then twice as long each
/// time, up to [`TICK`].
const FIRST_RETRY: Duration = Duration::from_millis(10);

/// Owns what is deployed.
pub struct Reconfigurer {
    /// The configuration in force.
    config: Config,
    args: ConfigArgs,
    ready: Arc<Ready>,
    link: Link,
    /// What the planner wants, where the split point is left to it.
    plans: watch::Receiver<Option<Planned>>,
    /// What others ask for.
    asked: mpsc::Receiver<Wish>,
    wishes: Wishes,
    outlets: Outlets,
    /// What was last made ready.
    wanted: Vec<Target>,
    /// The last complaint, so that a tick does not repeat it.
    complaint: Option<String>,
    /// The files as they were when they were read last.
    read: Option<Stamp>,
}

/// What others are told.
pub struct Outlets {
    pub in_force: watch::Sender<Config>,
    pub deployed: watch::Sender<Option<Arc<Deployment>>>,
    /// The whole model, where it has been made ready.
    pub whole: watch::Sender<Option<Arc<Deployment>>>,
}

impl Reconfigurer {
    pub fn new(
        config: Config,
        args: ConfigArgs,
        deployer: Deployer,
        link: Link,
        plans: watch::Receiver<Option<Planned>>,
        asked: mpsc::Receiver<Wish>,
        outlets: Outlets,
    ) -> Self {
        let ready = Arc::new(Ready::new(deployer));
        let (wishes, wanted, complaint, read) = (Wishes::default(), Vec::new(), None, None);
        Self { config, args, ready, link, plans, asked, wishes, outlets, wanted, complaint, read }
    }

    /// Runs for the life of the node; `first` is called once something is deployed.
    pub async fn run(mut self, first: impl AsyncFnOnce() + Send + 'static) {
        let (changed, mut changes) = mpsc::channel(1);
        let _watchers = self.watch(&changed);
        let mut first = Some(first);
        let mut pause = FIRST_RETRY;
        self.refresh().await;
        loop {
            if self.outlets.deployed.borrow().is_some() {
                pause = TICK;
                if let Some(first) = first.take() {
                    first().await;
                }
            }
            tokio::select! {
                _ = changes.recv() => self.look().await,
                () = tokio::time::sleep(pause) => {
                    self.look().await;
                    pause = TICK.min(pause * 2);
                }
                () = self.ready.deployer().lost() => {
                    self.unbind();
                    self.refresh().await;
                }
                Ok(()) = self.plans.changed() => self.refresh().await,
                Some(wish) = self.asked.recv() => {
                    self.grant(wish).await;
                    self.refresh().await;
                }
            }
        }
    }

    fn watch(&self, changed: &mpsc::Sender<()>) -> Vec<notify::RecommendedWatcher> {
        let config = self.args.file().ok();
        let pointer = Pointer::path(&self.config.runs.dir);
        let folders = config.iter().chain([&pointer]).filter_map(|f| folder(f));
        folders.filter_map(|folder| watcher(&folder, changed.clone())).collect()
    }

    /// Reads the files again if they may have changed, or if what they say is not in force yet.
    async fn look(&mut self) {
        let deployed = self.outlets.deployed.borrow().clone();
        let in_force = deployed.is_some_and(|d| d.bound.load(Ordering::Relaxed));
        let same = |read: &Stamp| read.is_settled() && *read == self.stamp();
        if !(in_force && self.complaint.is_none() && self.read.as_ref().is_some_and(same)) {
            self.refresh().await;
        }
    }

    /// Of all files that are read: the configuration, the link's profile, and the note of what is deployed.
    fn stamp(&self) -> Stamp {
        let config = self.args.file().ok();
        let profile = config.as_ref().and_then(|file| {
            let name = &self.config.link.profile;
            let own = name.contains('/') || name.ends_with(".toml");
            let beside = || file.parent().map(|f| f.join(PROFILES).join(format!("{name}.toml")));
            if own { Some(PathBuf::from(name)) } else { beside() }
        });
        Stamp::of(config.into_iter().chain(profile).chain([Pointer::path(&self.config.runs.dir)]))
    }

    /// Brings what is in force to what the files say, or says why not and keeps what is in force.
    async fn refresh(&mut self) {
        // Before they are read: a change meanwhile is seen at the next look.
        self.read = Some(self.stamp());
        match self.try_refresh().await {
            Ok(()) => self.complaint = None,
            Err(text) => {
                if self.complaint.as_ref() != Some(&text) {
                    tracing::error!("{text}; the old setting stays in force");
                }
                self.complaint = Some(text);
            }
        }
    }

    /// Brings what is asked for into force, or says why not and keeps what is in force.
    async fn grant(&mut self, Wish { setting, done }: Wish) {
        let before = self.wishes.clone();
        let outcome = match self.wishes.add(setting.clone(), &self.args) {
            Ok(()) => self.try_refresh().await,
            refused => refused,
        };
        // What else is wrong with the configuration is not this wish's.
        let outcome = if self.has(&setting) { Ok(()) } else { outcome };
        match &outcome {
            Ok(()) => tracing::info!(?setting, "changed at run time"),
            Err(_) => self.wishes = before,
        }
        let _ = done.send(outcome);
    }

    fn has(&self, setting: &Setting) -> bool {
        match setting {
            Setting::SplitPoint(wished) => {
                let deployed = self.outlets.deployed.borrow();
                let split = deployed.as_ref().map(|d| d.target.split);
                self.config.split_point == *wished
                    && (wished.is_auto() || split == Some(wished.stages()))
            }
            Setting::LinkProfile(wished) => self.config.link.profile == *wished,
            // Whatever is wrong is in its way.
            Setting::Newest => false,
        }
    }

    async fn try_refresh(&mut self) -> Result<(), String> {
        let asked = self.wishes.load(&self.args)?;
        let in_force = Config {
            split_point: asked.split_point,
            codec: asked.codec.clone(),
            link: asked.link.clone(),
            plan: asked.plan.clone(),
            // Not this process's business: what training and the cloud node read.
            train: asked.train.clone(),
            data: asked.data.clone(),
            cloud: asked.cloud.clone(),
            // Followed by itself.
            log: LogConfig { level: asked.log.level.clone(), ..self.config.log.clone() },
            ..self.config.clone()
        };
        if asked.link != self.config.link {
            // The name, or what its file says.
            self.link.set_profile(asked.link_profile());
            tracing::info!(profile = asked.link.profile, "link profile changed");
        }
        self.outlets.in_force.send_if_modified(|config| {
            let changed = *config != in_force;
            config.clone_from(&in_force);
            changed
        });
        self.config = in_force;
        let (target, likely) = self.targets()?;
        if self.outlets.deployed.borrow().as_ref().is_none_or(|d| d.target != target) {
            let deployment = self.ready.get(&target).await?;
            let (split, version) = (target.split, deployment.version());
            self.outlets.deployed.send_replace(Some(deployment));
            metrics::counter!("cleave_deployments_total").increment(1);
            tracing::info!(
                split_point = split,
                codec = target.codec,
                weights = version,
                "deployed"
            );
        }
        self.make_ready(target, likely);
        let deployed = self.outlets.deployed.borrow().clone();
        if let Some(deployed) = deployed.filter(|d| !d.bound.load(Ordering::Relaxed)) {
            self.ready.deployer().agree(&deployed).await?;
            tracing::info!("the cloud has agreed");
        }
        if asked == self.config {
            return Ok(());
        }
        Err("a key other than split_point, codec, plan, link and log.level was changed: restart the node for it"
            .into())
    }

    /// Another cloud has taken over: what is deployed is agreed with it anew.
    fn unbind(&self) {
        if let Some(deployed) = self.outlets.deployed.borrow().as_ref() {
            deployed.bound.store(false, Ordering::Relaxed);
        }
    }

    /// What to deploy, and what may be deployed soon.
    fn targets(&self) -> Result<(Target, Vec<Target>), String> {
        let own = self.ready.deployer().target(&self.config)?;
        let planned = self.plans.borrow().clone();
        let Some(Planned { choice, likely }) =
            planned.filter(|_| self.config.split_point.is_auto())
        else {
            let whole = Target { split: self.config.model.stage_count(), ..own.clone() };
            let spare = self.config.edge.fallback == Fallback::Whole && own != whole;
            return Ok((own, if spare { vec![whole] } else { Vec::new() }));
        };
        let target = |choice: Choice| {
            let codec = choice.codec.unwrap_or_else(|| own.codec.clone());
            Target { split: choice.split, codec, weights: own.weights.clone() }
        };
        Ok((target(choice), likely.into_iter().map(target).collect()))
    }

    /// Makes what is likely ready in the background, and forgets the rest.
    fn make_ready(&mut self, target: Target, likely: Vec<Target>) {
        let wanted: Vec<Target> = std::iter::once(target).chain(likely).collect();
        if wanted == self.wanted {
            return;
        }
        self.wanted.clone_from(&wanted);
        self.ready.keep(&wanted);
        let (ready, whole) = (self.ready.clone(), self.outlets.whole.clone());
        whole.send_if_modified(|d| d.take_if(|d| !wanted.contains(&d.target)).is_some());
        tokio::spawn(async move {
            for target in &wanted {
                match ready.get(target).await {
                    Ok(made) if made.is_whole() => {
                        let before = whole.send_replace(Some(made));
                        if before.is_none() {
                            tracing::info!("the whole model is at hand");
                        }
                    }
                    Ok(_) => {}
                    Err(problem) => tracing::debug!("not made ready: {problem}"),
                }
            }
        });
    }
}

fn folder(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    // The runs folder may not be there before the first training.
    let _ = std::fs::create_dir_all(folder);
    Some(folder.to_path_buf())
}

fn watcher(folder: &Path, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let notice = move |event: notify::Result<notify::Event>| {
        // Reading the file is an event as well, and would wake its reader for ever.
        if event.is_ok_and(|e| !e.kind.is_access()) {
            let _ = changed.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(notice).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "no notifications; looking every second");
            None
        }
    }
}
