//! What is searched: which values each setting may have, and the list of trials that follows.

use std::str::FromStr;

use cleave_shared::config::{Config, SplitPoint};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How trials are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Search {
    /// Every combination.
    Grid,
    /// Independent draws, which find good values of what matters in fewer trials (Bergstra & Bengio
    /// 2012).
    Random,
}

/// Learning rates: some values, or a range whose logarithm is uniform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rates {
    Values(Vec<f64>),
    Range(f64, f64),
}

impl FromStr for Rates {
    type Err = String;

    /// `0.001,0.01`, or `1e-4..1e-1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |t: &str| match t.trim().parse::<f64>() {
            Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
            _ => Err(format!("{t:?} is not a positive number")),
        };
        match text.split_once("..") {
            Some((low, high)) => match (number(low)?, number(high)?) {
                (low, high) if low < high => Ok(Rates::Range(low, high)),
                _ => Err(format!("{text}: the range is empty")),
            },
            None => text.split(',').map(number).collect::<Result<_, _>>().map(Rates::Values),
        }
    }
}

/// All that is searched; what is not stays as configured, as a list of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Space {
    pub learning_rate: Rates,
    pub batch_size: Vec<usize>,
    /// Of activations and gradients.
    pub codec: Vec<String>,
    pub split_point: Vec<usize>,
}

/// One setting of everything that is searched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Counted from 1.
    pub trial: usize,
    pub learning_rate: f64,
    pub batch_size: usize,
    pub codec: String,
    pub split_point: usize,
}

impl Trial {
    /// The configuration with this trial's settings.
    pub fn configure(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.train.optimizer.set_learning_rate(self.learning_rate);
        config.train.batch_size = self.batch_size;
        config.codec.activation = self.codec.clone();
        config.codec.gradient = self.codec.clone();
        config.split_point = SplitPoint::Fixed(self.split_point);
        config
    }
}

impl Space {
    /// The trials `1..=most`, or fewer if the grid has fewer. More trials of the same space and seed
    /// begin with the same ones.
    pub fn trials(&self, search: Search, most: usize, seed: u64) -> Result<Vec<Trial>, String> {
        match search {
            Search::Grid => self.grid(most),
            Search::Random => Ok((1..=most).map(|number| self.draw(number, seed)).collect()),
        }
    }

    fn grid(&self, most: usize) -> Result<Vec<Trial>, String> {
        let Rates::Values(rates) = &self.learning_rate else {
            return Err("--search grid needs a list of learning rates, such as 0.001,0.01".into());
        };
        let mut trials = Vec::new();
        for &split_point in &self.split_point {
            for codec in &self.codec {
                for &batch_size in &self.batch_size {
                    for &learning_rate in rates {
                        let (trial, codec) = (trials.len() + 1, codec.clone());
                        trials.push(Trial { trial, learning_rate, batch_size, codec, split_point });
                    }
                }
            }
        }
        trials.truncate(most);
        Ok(trials)
    }

    /// From a stream of its own, so that it does not depend on the trials before.
    fn draw(&self, trial: usize, seed: u64) -> Trial {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(trial as u64);
        let learning_rate = match &self.learning_rate {
            Rates::Values(values) => *pick(values, &mut rng),
            Rates::Range(low, high) => {
                let share = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                (low.ln() + share * (high.ln() - low.ln())).exp()
            }
        };
        Trial {
            trial,
            learning_rate,
            batch_size: *pick(&self.batch_size, &mut rng),
            codec: pick(&self.codec, &mut rng).clone(),
            split_point: *pick(&self.split_point, &mut rng),
        }
    }
}

fn pick<'a, T>(values: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
    // The bias of the remainder is below 2^-50 for lists that a person writes.
    &values[(rng.next_u64() % values.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(learning_rate: &str) -> Space {
        Space {
            learning_rate: learning_rate.parse().unwrap(),
            batch_size: vec![16, 32],
            codec: vec!["f32".into()],
            split_point: vec![0, 2, 4],
        }
    }

    #[test]
    fn a_grid_has_every_combination_once() {
        let trials = space("0.1,0.01").trials(Search::Grid, 100, 1).unwrap();
        assert_eq!(trials.len(), 12);
        let mut seen: Vec<String> = trials
            .iter()
            .map(|t| format!("{} {} {}", t.learning_rate, t.batch_size, t.split_point))
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 12);
        assert_eq!(space("0.1,0.01").trials(Search::Grid, 5, 1).unwrap(), trials[..5]);
        assert!(space("0.1..1").trials(Search::Grid, 5, 1).is_err());
    }

    #[test]
    fn more_random_trials_begin_with_the_same_ones() {
        let space = space("1e-4..1e-1");
        let few = space.trials(Search::Random, 5, 3).unwrap();
        let many = space.trials(Search::Random, 200, 3).unwrap();
        assert_eq!(many[..5], few);
        assert_ne!(space.trials(Search::Random, 5, 4).unwrap(), few);
        assert!(many.iter().all(|t| (1e-4..1e-1).contains(&t.learning_rate)));
        // Uniform in the logarithm: a third of them in each decade.
        let middle = many.iter().filter(|t| (1e-3..1e-2).contains(&t.learning_rate)).count();
        assert!((40..95).contains(&middle), "{middle}");
        for split in [0, 2, 4] {
            assert!(many.iter().any(|t| t.split_point == split));
        }
    }

    #[test]
    fn bad_rates_are_refused() {
        for text in ["", "0", "x", "1e-1..1e-4", "0.1,", "-1"] {
            assert!(text.parse::<Rates>().is_err(), "{text}");
        }
        assert_eq!("1e-4..0.1".parse::<Rates>().unwrap(), Rates::Range(1e-4, 0.1));
    }
}
