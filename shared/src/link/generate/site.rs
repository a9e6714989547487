//! One base station as the phone sees it: what of its signal is lost right now.

use super::draw::Draws;
use super::propagation::Environment;
use super::scenario::{Blockage, Scenario};

/// Metres over which loss goes from that with line of sight to that without, as one walks
/// round a corner: chosen by us, so that the loss has no jumps.
const CORNER_M: f64 = 5.0;
/// Time constant with which a body enters and leaves the path, s: chosen by us.
const BODY_S: f64 = 0.05;

/// The path between the phone and one site; sites are independent of each other.
#[derive(Debug)]
pub(super) struct Site {
    draws: Draws,
    at_m: (f64, f64),
    environment: Environment,
    ghz: f64,
    /// Unit-variance processes along the phone's way: which places see the site, and how
    /// deep in shadow they are.
    sight: f64,
    shadow: f64,
    /// 1 with line of sight, 0 without, between the two near a corner.
    clear: f64,
    bodies: Vec<Body>,
    distance_m: f64,
}

impl Site {
    pub(super) fn new(scenario: &Scenario, mut draws: Draws, at_m: (f64, f64)) -> Self {
        let (sight, shadow) = (draws.normal(), draws.normal());
        let bodies =
            scenario.blockages.iter().map(|blockage| Body::new(*blockage, &mut draws)).collect();
        let (environment, ghz) = (scenario.environment, scenario.frequency_ghz);
        Self { draws, at_m, environment, ghz, sight, shadow, clear: -1.0, bodies, distance_m: 0.0 }
    }

    /// The phone is now at `phone_m`, having moved by `moved_m` in `dt_s`.
    pub(super) fn advance(&mut self, phone_m: (f64, f64), moved_m: f64, dt_s: f64) {
        self.distance_m = (phone_m.0 - self.at_m.0).hypot(phone_m.1 - self.at_m.1);
        let renewed = (-moved_m / self.environment.sight_decorrelation_m()).exp();
        self.sight = self.draws.correlated(self.sight, renewed);
        let seen = below(self.sight) < self.environment.sight_probability(self.distance_m);
        let target = f64::from(u8::from(seen));
        if self.clear < 0.0 {
            self.clear = target;
        }
        self.clear += (target - self.clear) * (1.0 - (-moved_m / CORNER_M).exp());
        let shadowing = self.environment.shadowing(seen, self.distance_m, self.ghz);
        let kept = (-moved_m / shadowing.decorrelation_m).exp();
        self.shadow = self.draws.correlated(self.shadow, kept);
        for body in &mut self.bodies {
            body.advance(&mut self.draws, dt_s);
        }
    }

    /// Path loss, shadowing and bodies in the way, dB.
    pub(super) fn loss_db(&self) -> f64 {
        let path = |sight| {
            let shadowing = self.environment.shadowing(sight, self.distance_m, self.ghz);
            self.environment.path_loss_db(sight, self.distance_m, self.ghz)
                + shadowing.sigma_db * self.shadow
        };
        let blocked: f64 = self.bodies.iter().map(|body| body.loss_db).sum();
        self.clear * path(true) + (1.0 - self.clear) * path(false) + blocked
    }
}

/// A body that gets into a narrow beam and out of it: an on/off process.
#[derive(Debug)]
struct Body {
    blockage: Blockage,
    /// What it would take if it stood still, dB; 0 when nobody is in the way.
    target_db: f64,
    left_s: f64,
    loss_db: f64,
}

impl Body {
    fn new(blockage: Blockage, draws: &mut Draws) -> Self {
        let left_s = draws.exponential(blockage.clear_s);
        Self { blockage, target_db: 0.0, left_s, loss_db: 0.0 }
    }

    fn advance(&mut self, draws: &mut Draws, dt_s: f64) {
        self.left_s -= dt_s;
        if self.left_s <= 0.0 {
            let blocks = self.target_db == 0.0;
            let (target_db, mean_s) = match blocks {
                true => (draws.between(self.blockage.depth_db), self.blockage.blocked_s),
                false => (0.0, self.blockage.clear_s),
            };
            self.target_db = target_db;
            self.left_s = draws.exponential(mean_s);
        }
        self.loss_db += (self.target_db - self.loss_db) * (1.0 - (-dt_s / BODY_S).exp());
    }
}

/// The share of a standard normal distribution below `x`: Abramowitz and Stegun, 7.1.26,
/// within 1.5e-7.
fn below(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = 0.5 * series * (-z * z).exp();
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        for (x, share) in [(0.0, 0.5), (1.0, 0.841_345), (-1.96, 0.024_998), (3.0, 0.998_650)] {
            assert!((below(x) - share).abs() < 1e-6, "{x}");
        }
    }

    fn mean_loss(distance_m: f64) -> f64 {
        let scenario = Scenario::named("midband-walk").unwrap();
        let losses = (0..2_000).map(|stream| {
            let mut site = Site::new(&scenario, Draws::new(1, stream), (0.0, 0.0));
            site.advance((distance_m, 0.0), 1.0, 0.01);
            site.loss_db()
        });
        losses.sum::<f64>() / 2_000.0
    }

    #[test]
    fn signal_falls_with_distance_over_all_shadows() {
        let losses = [20.0, 80.0, 200.0, 500.0].map(mean_loss);
        assert!(losses.is_sorted_by(|near, far| near + 3.0 < *far), "{losses:?}");
    }

    #[test]
    fn bodies_block_for_their_share_of_the_time() {
        let blockage = Blockage { clear_s: 3.0, blocked_s: 1.0, depth_db: (20.0, 20.0) };
        let mut draws = Draws::new(5, 0);
        let mut body = Body::new(blockage, &mut draws);
        let blocked = (0..1_000_000).filter(|_| {
            body.advance(&mut draws, 0.01);
            body.loss_db > 10.0
        });
        let share = blocked.count() as f64 / 1e6;
        assert!((share - 0.25).abs() < 0.02, "{share}");
    }
}
