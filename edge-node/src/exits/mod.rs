//! Early exits: the edge answers alone for samples that it is sure of, and when the cloud is gone.
//!
//! [`train()`] makes exits for weights that are trained already, which stay as they are; they lie beside
//! the weights in the run's folder ([`stored`]). A deployment takes them along, and
//! [`Left`] is what they do for a request: who leaves, and how answers are put together again.
//! [`report()`] shows what each threshold would do.

mod answer;
mod cascade;
mod report;
mod samples;
mod stored;
mod train;

use cleave_shared::{config::Config, model::exit_sizes};

pub use self::{
    answer::Left,
    report::{Report, report},
    stored::stored,
    train::{Options, train},
};

/// The number of the stage that a person means by its name, or by how many stages there are up to it.
fn place(config: &Config, asked: &str) -> Result<usize, String> {
    let names = config.model.stage_names();
    let place = match names.iter().position(|name| name == asked) {
        Some(i) => i + 1,
        None => asked
            .parse()
            .map_err(|_| format!("--after: {asked:?} is no stage; known: {}", names.join(", ")))?,
    };
    let sizes = exit_sizes(&config.model, place);
    sizes.map(|_| place).map_err(|problem| format!("--after: {asked}: {problem}"))
}
