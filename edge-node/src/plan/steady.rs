//! When a better choice is worth a switch.
//!
//! Predictions move with every transfer. A switch is taken when another choice has been predicted to be
//! better by the hysteresis' share several times in a row, or once if the link has just changed, or when it
//! has been a little better for long; and back again only by the same rule, so noise around a tie never
//! flaps.

use super::{Choice, Plan};

/// Plans in a row that must agree on another choice, while nothing has changed.
const AGREEING: u32 = 3;
/// What is better by this part of the hysteresis only has to be so for many plans in a row.
const LITTLE: f64 = 0.25;
const LONG: u32 = 10;

/// The choice in force, and what speaks against it.
#[derive(Debug, Clone)]
pub struct Steady {
    hysteresis: f64,
    current: Choice,
    better: u32,
    /// As `better`, of what is a little better at least.
    little_better: u32,
}

impl Steady {
    pub fn new(current: Choice, hysteresis: f64) -> Self {
        Self { hysteresis, current, better: 0, little_better: 0 }
    }

    pub fn current(&self) -> &Choice {
        &self.current
    }

    /// Whether this choice, which was in force, may stay when all is planned from the beginning.
    pub fn may_stay(own: f64, best: f64, hysteresis: f64) -> bool {
        own * (1.0 - LITTLE * hysteresis) <= best
    }

    /// A new plan; `changed`: whether a change of the link or of the load was detected since the last.
    /// Gives the choice to [switch](Self::switch) to, if it is time.
    pub fn consider(&mut self, plan: &Plan, changed: bool) -> Option<Choice> {
        let best = plan.best()?;
        if best.choice == self.current {
            self.forget();
            return None;
        }
        // What is not allowed any more, or is not in the plan, is left at once.
        let own = plan.find(&self.current).filter(|own| own.forbidden.is_none());
        let urgent = own.is_none();
        let by = |share: f64| own.is_none_or(|own| best.score < own.score * (1.0 - share));
        let worth = by(self.hysteresis);
        self.better = if worth { self.better + 1 } else { 0 };
        self.little_better = if by(LITTLE * self.hysteresis) { self.little_better + 1 } else { 0 };
        let soon = worth && (urgent || changed || self.better >= AGREEING);
        if !(soon || self.little_better >= LONG) {
            return None;
        }
        Some(best.choice.clone())
    }

    pub fn switch(&mut self, choice: Choice) {
        self.current = choice;
        self.forget();
    }

    fn forget(&mut self) {
        (self.better, self.little_better) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use cleave_shared::config::PlanConfig;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Costs, Crossing, Curve, HostCost, Limits, Network, plan};

    /// Head and tail of 10 ms each way; 100 kB cross.
    fn at(mbps: f64) -> Plan {
        let crossing =
            Crossing { codec: "f32".into(), bytes: 100_000, encode_ms: 0.0, decode_ms: 0.0 };
        let costs = Costs {
            head_ms: vec![0.0, 60.0],
            tail_ms: vec![10.0, 0.0],
            crossings: vec![vec![crossing], Vec::new()],
            head_flops: vec![0.0; 2],
            head_bytes: vec![0; 2],
            output_bytes: 4,
        };
        let network =
            Network { up: Curve::line(5.0, mbps * 1e6), down: Curve::line(5.0, mbps * 1e6) };
        let limits = Limits {
            config: PlanConfig::default(),
            queue_ms: 0.0,
            head_factor: 1.0,
            tail_factor: 1.0,
            accuracy: Vec::new(),
        };
        plan(&costs, &network, HostCost::default(), &limits)
    }

    fn cloud() -> Choice {
        Choice { split: 0, codec: Some("f32".into()) }
    }

    /// Does what it says.
    fn follow(steady: &mut Steady, mbps: f64, changed: bool) -> Option<Choice> {
        let choice = steady.consider(&at(mbps), changed)?;
        steady.switch(choice.clone());
        Some(choice)
    }

    #[test]
    fn a_change_switches_at_once_and_a_drift_after_some_plans() {
        let mut steady = Steady::new(cloud(), 0.1);
        assert_eq!(follow(&mut steady, 100.0, true), None);
        assert_eq!(follow(&mut steady, 1.0, true).map(|c| c.split), Some(1));
        assert_eq!(follow(&mut steady, 100.0, false), None);
        assert_eq!(follow(&mut steady, 100.0, false), None);
        assert_eq!(follow(&mut steady, 100.0, false), Some(cloud()));
    }

    proptest! {
        /// Around the tie (20 Mbit/s: 60 ms either way) it does not flap, whatever the noise within the
        /// hysteresis.
        #[test]
        fn noise_around_a_tie_is_at_most_one_switch(
            rates in prop::collection::vec(19.0f64..21.0, 1..100), changed in any::<bool>(),
        ) {
            let mut steady = Steady::new(cloud(), 0.1);
            let switches = rates.into_iter().filter(|&r| follow(&mut steady, r, changed).is_some());
            prop_assert!(switches.count() <= 1);
        }
    }
}
