//! Where the phone is: the random waypoint model (Johnson and Maltz, "Dynamic Source
//! Routing in Ad Hoc Wireless Networks", 1996) in a disc around the middle site.

use super::draw::Draws;

/// Goes to a random place in a straight line, waits there, and picks the next.
#[derive(Debug)]
pub(super) struct Walk {
    draws: Draws,
    radius_m: f64,
    speeds_mps: (f64, f64),
    longest_pause_s: f64,
    at_m: (f64, f64),
    to_m: (f64, f64),
    speed_mps: f64,
    pause_s: f64,
}

impl Walk {
    pub(super) fn new(
        mut draws: Draws,
        radius_m: f64,
        speeds_mps: (f64, f64),
        longest_pause_s: f64,
    ) -> Self {
        let at_m = place(&mut draws, radius_m);
        let to_m = place(&mut draws, radius_m);
        let speed_mps = draws.between(speeds_mps);
        Self { draws, radius_m, speeds_mps, longest_pause_s, at_m, to_m, speed_mps, pause_s: 0.0 }
    }

    pub(super) fn position_m(&self) -> (f64, f64) {
        self.at_m
    }

    /// 0 while it waits.
    pub(super) fn speed_mps(&self) -> f64 {
        if self.pause_s > 0.0 { 0.0 } else { self.speed_mps }
    }

    /// Moves on by `dt_s` and returns the metres covered.
    pub(super) fn advance(&mut self, dt_s: f64) -> f64 {
        if self.pause_s > 0.0 {
            self.pause_s -= dt_s;
            return 0.0;
        }
        let (dx, dy) = (self.to_m.0 - self.at_m.0, self.to_m.1 - self.at_m.1);
        let (left_m, step_m) = (dx.hypot(dy), self.speed_mps * dt_s);
        if step_m < left_m {
            let share = step_m / left_m;
            self.at_m = (self.at_m.0 + dx * share, self.at_m.1 + dy * share);
            return step_m;
        }
        self.at_m = self.to_m;
        self.to_m = place(&mut self.draws, self.radius_m);
        self.speed_mps = self.draws.between(self.speeds_mps);
        self.pause_s = self.draws.between((0.0, self.longest_pause_s));
        left_m
    }
}

/// Uniform over the disc.
fn place(draws: &mut Draws, radius_m: f64) -> (f64, f64) {
    let distance = radius_m * draws.uniform().sqrt();
    let angle = std::f64::consts::TAU * draws.uniform();
    (distance * angle.cos(), distance * angle.sin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_the_disc_at_its_speed() {
        let mut walk = Walk::new(Draws::new(3, 0), 50.0, (1.0, 2.0), 5.0);
        let (mut moved, mut waited) = (0, 0);
        for _ in 0..100_000 {
            let before = walk.position_m();
            let metres = walk.advance(0.1);
            let (x, y) = walk.position_m();
            assert!(x.hypot(y) <= 50.0 + 1e-9);
            assert!(((x - before.0).hypot(y - before.1) - metres).abs() < 1e-9);
            assert!(metres <= 0.2 + 1e-9);
            moved += u32::from(metres > 0.0);
            waited += u32::from(walk.speed_mps() == 0.0);
        }
        assert!(moved > 50_000 && waited > 1_000, "{moved} {waited}");
    }
}
