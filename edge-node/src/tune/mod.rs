//! The fourth of the five steps: searches for good settings by training many times, several at once.
//!
//! Each trial is a split training run of its own against the cloud, over a link of its own, and stays in
//! the runs folder: `validate` measures it and `serve --run` deploys it. What a trial came to is
//! compared with the others after every epoch ([`stopping`]); trials that end are noted on disk
//! ([`journal`]), so that a search that was interrupted goes on where it was, inside a trial too.

mod journal;
mod space;
mod stopping;
mod table;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Instant,
};

use cleave_shared::{codec, config::Config};
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use self::{
    journal::{Ended, Journal, Plan, State},
    stopping::Board,
};
pub use self::{
    space::{Rates, Search, Space, Trial},
    stopping::Rule,
    table::render,
};
use crate::{
    bar::bar,
    train::{self, Outcome, RunRecord, data_folder, new_run_id},
};

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run whose folder holds the search, and whose prepared data are used if it has any.
    pub run: Option<String>,
    pub resume: bool,
    pub space: Space,
    pub search: Search,
    pub rule: Rule,
    pub trials: usize,
    pub parallel: usize,
    pub seed: u64,
}

/// A search that is over: its run, and its trials, best first.
#[derive(serde::Serialize)]
pub struct Tuned {
    pub run: String,
    pub ended: Vec<Ended>,
}

/// What all trials share.
struct Shared {
    config: Config,
    run: String,
    /// Whose prepared data; none if nothing was prepared.
    data_of: Option<String>,
    board: Mutex<Board>,
    /// Counts epochs, those that trials do without as well.
    shown: ProgressBar,
}

/// Searches; the error is one line. `say` is given a line for each trial that ends.
pub async fn tune(config: &Config, options: &Options, say: impl Fn(&str)) -> Result<Tuned, String> {
    let run = options.run.clone().unwrap_or_else(|| new_run_id(config));
    cleave_shared::checkpoint::check_run_id(&trial_run(&run, options.trials))
        .map_err(|e| format!("--run: {e}"))?;
    check(config, &options.space)?;
    let trials = options.space.trials(options.search, options.trials, options.seed)?;
    let folder = config.runs.dir.join("edge").join(&run).join("tune");
    let plan = Plan {
        space: options.space.clone(),
        search: options.search,
        rule: options.rule,
        seed: options.seed,
        epochs: config.train.epochs,
    };
    let mut journal = Journal::open(&folder, &plan, options.resume)?;
    let mut board = Board::new(options.rule);
    journal.ended().iter().for_each(|e| board.remember(e.trial.trial, e.curve.clone()));
    let prepared = cleave_shared::data::Prepared::is_in(&data_folder(&config.runs.dir, &run));
    let done: Vec<usize> = journal.ended().iter().map(|e| e.trial.trial).collect();
    let mut waiting: VecDeque<Trial> =
        trials.into_iter().filter(|t| !done.contains(&t.trial)).collect();
    let shared = Arc::new(Shared {
        config: config.clone(),
        data_of: prepared.then(|| run.clone()),
        run,
        board: Mutex::new(board),
        shown: bar("tuning, epochs", waiting.len() * config.train.epochs as usize),
    });
    let mut running = JoinSet::new();
    loop {
        while running.len() < options.parallel.max(1)
            && let Some(trial) = waiting.pop_front()
        {
            running.spawn(run_trial(shared.clone(), trial));
        }
        let Some(ended) = running.join_next().await else { break };
        let ended = ended.map_err(|e| format!("a trial failed: {e}"))?;
        shared.shown.suspend(|| say(&table::line(&ended)));
        journal.add(ended)?;
    }
    shared.shown.finish_and_clear();
    journal.finish()?;
    if journal.ended().iter().all(|e| e.state == State::Failed) {
        let why = journal.ended().iter().find_map(|e| e.error.clone());
        return Err(format!("no trial came to an end: {}", why.unwrap_or_default()));
    }
    Ok(Tuned { run: shared.run.clone(), ended: journal.ended().to_vec() })
}

/// Refuses settings that no trial could have, before any is run.
fn check(config: &Config, space: &Space) -> Result<(), String> {
    for &split in &space.split_point {
        config.model.check_split(split).map_err(|e| format!("--split: {e}"))?;
    }
    for name in &space.codec {
        codec::by_name(name).map_err(|e| format!("--codec: {e}"))?;
    }
    match space.batch_size.contains(&0) {
        true => Err("--batch-size: 0 is out of range; allowed: 1 and more".into()),
        false => Ok(()),
    }
}

/// The run of a trial.
fn trial_run(run: &str, trial: usize) -> String {
    format!("{run}-trial-{trial:03}")
}

async fn run_trial(shared: Arc<Shared>, trial: Trial) -> Ended {
    let begin = Instant::now();
    let run = trial_run(&shared.run, trial.trial);
    let outcome = train_trial(&shared, &trial, &run).await;
    let board = shared.board.lock().unwrap_or_else(|p| p.into_inner());
    let curve = board.curve(trial.trial);
    shared.shown.inc(shared.config.train.epochs.saturating_sub(curve.len() as u64));
    let seconds = begin.elapsed().as_secs_f64();
    let mut ended = Ended {
        trial,
        run,
        state: State::Failed,
        validation: None,
        curve,
        seconds,
        uplink_bytes: 0,
        downlink_bytes: 0,
        error: None,
        best: false,
    };
    match outcome {
        Ok(outcome) => {
            ended.state = if outcome.stopped { State::Stopped } else { State::Done };
            ended.validation = outcome.validated;
            ended.uplink_bytes = outcome.uplink_bytes;
            ended.downlink_bytes = outcome.downlink_bytes;
        }
        Err(error) => ended.error = Some(error),
    }
    ended
}

async fn train_trial(shared: &Arc<Shared>, trial: &Trial, run: &str) -> Result<Outcome, String> {
    let config = trial.configure(&shared.config);
    // Begun before the search was interrupted: it goes on from its checkpoint.
    let resume = RunRecord::read(&config.runs.dir, run)?.is_some();
    let options = train::Options {
        run: Some(run.into()),
        resume,
        no_deploy: true,
        data_of: shared.data_of.clone(),
        edge: None,
    };
    let (all, number) = (shared.clone(), trial.trial);
    let observer: train::Observer = Box::new(move |validated| {
        let mut board = all.board.lock().unwrap_or_else(|p| p.into_inner());
        let known = board.curve(number).len() as u64;
        all.shown.inc(validated.epoch.saturating_sub(known));
        board.note(number, validated.epoch, validated.score.badness())
    });
    train::train_observed(&config, &options, Some(observer)).await
}
