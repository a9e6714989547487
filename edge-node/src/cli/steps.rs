//! The five steps as commands: prepare, train, validate, tune; `serve` is the fifth.

use clap::{Args, ValueEnum};
use cleave_shared::{config::Config, data::Part};

use crate::{
    demo, prepare, train,
    tune::{self, Rates, Rule, Search, Space},
    validate,
};

#[derive(Args)]
pub struct PrepareArgs {
    /// Run id: letters, digits, '-' and '_' [default: run-SECONDS]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Prints what was prepared as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct TrainArgs {
    /// Run id: letters, digits, '-' and '_' [default: run-SECONDS]; what was prepared for it is used
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Continue a run, the newest one without --run
    #[arg(long)]
    resume: bool,
    /// Leave what is deployed as it is
    #[arg(long)]
    no_deploy: bool,
    /// Be this edge of a group (train.topology), from 0 [default: all of them]
    #[arg(long, value_name = "NUMBER")]
    edge: Option<usize>,
    /// Prints what it came to as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ValidateArgs {
    /// Run id [default: the newest]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = PartName::Validation)]
    part: PartName,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PartName {
    Train,
    Validation,
    Test,
}

impl PartName {
    pub fn part(self) -> Part {
        match self {
            PartName::Train => Part::Train,
            PartName::Validation => Part::Validation,
            PartName::Test => Part::Test,
        }
    }
}

#[derive(Args)]
pub struct TuneArgs {
    /// The run that holds the search; what was prepared for it is used [default: run-SECONDS]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Goes on with the search of this run
    #[arg(long, requires = "run")]
    resume: bool,
    #[arg(long, value_enum, default_value_t = Search::Random)]
    search: Search,
    /// Trials at most
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=999))]
    trials: u16,
    /// Trials at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Seed of a random search
    #[arg(long, default_value_t = 1)]
    search_seed: u64,
    /// Values such as 0.001,0.01, or a range such as 1e-4..1e-1 [default: a tenth to ten times the
    /// configured rate; these and the rate for a grid]
    #[arg(long, value_name = "RATES")]
    learning_rate: Option<Rates>,
    /// Values such as 16,32,64 [default: as configured]
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    batch_size: Vec<usize>,
    /// Codecs such as f32 [default: as configured]; the cloud must be configured with the same
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    codec: Vec<String>,
    /// Split points such as 0,2,4 [default: as configured]
    #[arg(long, value_name = "POINTS", value_delimiter = ',')]
    split: Vec<usize>,
    /// When to end a trial early
    #[arg(long, value_enum, default_value_t = Rule::Median)]
    stop: Rule,
    /// Prints the trials, best first, as JSON
    #[arg(long)]
    json: bool,
}

pub fn prepare(config: &Config, args: PrepareArgs) -> Result<(), String> {
    let prepared = prepare::prepare(config, args.run)?;
    match args.json {
        true => println!("{}", prepared.json()),
        false => print!("{}", prepared.render()),
    }
    Ok(())
}

pub async fn train(config: &Config, args: TrainArgs) -> Result<(), String> {
    let TrainArgs { run, resume, no_deploy, edge, json } = args;
    let options = train::Options { run, resume, no_deploy, data_of: None, edge };
    let outcome = train::train_until_asked(config, &options).await?;
    match json {
        true => println!("{}", outcome.json()),
        false => println!("{}", demo::summary(&outcome)),
    }
    Ok(())
}

pub async fn validate(config: &Config, args: ValidateArgs) -> Result<(), String> {
    let part = args.part.part();
    let report = validate::validate(config, &validate::Options { run: args.run, part }).await?;
    print!("{}", if args.json { report.json() } else { report.render() });
    Ok(())
}

pub async fn tune(config: &Config, args: TuneArgs) -> Result<(), String> {
    let rate = config.train.optimizer.learning_rate();
    let around = match args.search {
        Search::Grid => Rates::Values(vec![rate / 10.0, rate, rate * 10.0]),
        Search::Random => Rates::Range(rate / 10.0, rate * 10.0),
    };
    let or = |given: Vec<usize>, own: usize| if given.is_empty() { vec![own] } else { given };
    let codec = match args.codec.is_empty() {
        true => vec![config.codec.activation.clone()],
        false => args.codec,
    };
    let space = Space {
        learning_rate: args.learning_rate.unwrap_or(around),
        batch_size: or(args.batch_size, config.train.batch_size),
        codec,
        split_point: or(args.split, config.split()),
    };
    let options = tune::Options {
        run: args.run,
        resume: args.resume,
        space,
        search: args.search,
        rule: args.stop,
        trials: args.trials.into(),
        parallel: args.parallel.into(),
        seed: args.search_seed,
    };
    let tuned = tune::tune(config, &options, |line| eprintln!("{line}")).await?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&tuned).expect("plain data")),
        false => print!("{}", tune::render(&tuned)),
    }
    Ok(())
}
