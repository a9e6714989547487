//! What noise is worth: (ε, δ) differential privacy of Gaussian mechanisms, by their Rényi divergence.
//!
//! [`epsilon`] is the accountant that DP-SGD uses: Mironov, "Rényi differential privacy" (CSF 2017);
//! Mironov, Talwar and Zhang, "Rényi differential privacy of the sampled Gaussian mechanism"
//! (arXiv:1908.10530); conversion to (ε, δ) by Balle et al., "Hypothesis testing interpretations and
//! Rényi differential privacy" (AISTATS 2020, theorem 21), which Canonne, Kamath and Steinke ("The
//! discrete Gaussian for differential privacy", NeurIPS 2020, proposition 12) give too. It takes a mechanism
//! whose output moves by at most 1 when a sample is added or left out, and noise of standard deviation
//! `noise_multiplier`.
//!
//! **What Cleave guarantees with it** ([`super::PrivacySpec::epsilon`]). Neighbours are two data sets
//! in which one sample is another. A step sends each sample's activation by itself, clipped to norm
//! C, so that another sample in its place moves it by at most 2C: the noise counts as
//! `noise_multiplier / 2`. Sampling does not help: amplification needs a sum in which a sample can
//! hide, and the cloud sees one activation for each sample. So the rate is 1, and the steps
//! are those that send the sample, one an epoch.
//!
//! **What it does not cover.** Labels are sent in the clear unless the topology keeps them. A head
//! that learns changes with its samples, and later activations of others with it: the guarantee is
//! about each sample's own activations, given the head. It is about the whole run only if the head is
//! frozen. Samples that are sent without noise, such as requests of inference, have no guarantee. Noise
//! is made of 32-bit floats, not real numbers (Mironov, CCS 2012).

use std::f64::consts::{LN_2, SQRT_2};

/// ε at this δ after `steps` of the sampled Gaussian mechanism; infinite without noise.
///
/// `rate` is the probability with which a sample is in a step, independently of the others
/// (Poisson sampling); 1 is a sample that is in each step.
pub fn epsilon(noise_multiplier: f64, rate: f64, steps: u64, delta: f64) -> f64 {
    if steps == 0 || rate == 0.0 {
        return 0.0;
    }
    let at = |order: f64| {
        let divergence = steps as f64 * divergence(noise_multiplier, rate, order);
        divergence - (delta.ln() + order.ln()) / (order - 1.0) + ((order - 1.0) / order).ln()
    };
    // The bound holds at each order, so the least of them holds.
    orders().map(at).fold(f64::INFINITY, f64::min).max(0.0)
}

/// Orders of the divergence: those of Opacus, and more at both ends, where much and little noise have
/// their best one.
fn orders() -> impl Iterator<Item = f64> {
    let near_one = [1.01, 1.02, 1.05].into_iter();
    let tenths = (1..100).map(|i| 1.0 + f64::from(i) / 10.0);
    let whole = (12..64).map(f64::from);
    let large = [80.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 1024.0].into_iter();
    near_one.chain(tenths).chain(whole).chain(large)
}

/// Rényi divergence of one step at this order.
fn divergence(sigma: f64, rate: f64, order: f64) -> f64 {
    if sigma == 0.0 {
        return f64::INFINITY;
    }
    if rate >= 1.0 {
        return order / (2.0 * sigma * sigma);
    }
    let log_moment = match order.fract() == 0.0 {
        true => whole_moment(sigma, rate, order),
        false => fractional_moment(sigma, rate, order),
    };
    log_moment / (order - 1.0)
}

/// Log of A_α for whole α: a binomial sum (Mironov, Talwar and Zhang, section 3.3).
fn whole_moment(sigma: f64, rate: f64, order: f64) -> f64 {
    let mut log_binomial = 0.0;
    let mut total = f64::NEG_INFINITY;
    for k in 0..=order as u32 {
        let k = f64::from(k);
        let weight = log_binomial + k * rate.ln() + (order - k) * (-rate).ln_1p();
        total = log_add(total, weight + (k * k - k) / (2.0 * sigma * sigma));
        log_binomial += ((order - k) / (k + 1.0)).ln();
    }
    total
}

/// Log of A_α for fractional α: two alternating series, each over its half of the line.
fn fractional_moment(sigma: f64, rate: f64, order: f64) -> f64 {
    /// Terms below e^-30 do not show in the sum.
    const NEGLIGIBLE: f64 = -30.0;
    let (log_in, log_out) = (rate.ln(), (-rate).ln_1p());
    let middle = sigma * sigma * (1.0 / rate - 1.0).ln() + 0.5;
    let shift = |k: f64| (k * k - k) / (2.0 * sigma * sigma);
    let half_erfc = |x: f64| log_erfc(x / (SQRT_2 * sigma)) - LN_2;
    let (mut left, mut right) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let (mut log_binomial, mut positive, mut k) = (0.0, true, 0.0);
    loop {
        let rest = order - k;
        let l = log_binomial + k * log_in + rest * log_out + shift(k) + half_erfc(k - middle);
        let r = log_binomial + rest * log_in + k * log_out + shift(rest) + half_erfc(middle - rest);
        let join = if positive { log_add } else { log_subtract };
        (left, right) = (join(left, l), join(right, r));
        if l.max(r) < NEGLIGIBLE {
            return log_add(left, right);
        }
        log_binomial += (rest / (k + 1.0)).abs().ln();
        positive = positive == (rest > 0.0);
        k += 1.0;
    }
}

/// `ln(e^a + e^b)`
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = (a.min(b), a.max(b));
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `ln(e^a - e^b)` for a > b; what rounding makes less than 0 is 0.
fn log_subtract(a: f64, b: f64) -> f64 {
    match (b == f64::NEG_INFINITY, a > b) {
        (true, _) => a,
        (false, true) => a + (-(b - a).exp()).ln_1p(),
        (false, false) => f64::NEG_INFINITY,
    }
}

/// `ln(erfc(x))`
fn log_erfc(x: f64) -> f64 {
    // Above 25 erfc comes near the smallest number; four terms of its asymptotic series are exact there.
    if x < 25.0 {
        return libm::erfc(x).ln();
    }
    let y = 1.0 / (2.0 * x * x);
    let series = 1.0 - y * (1.0 - 3.0 * y * (1.0 - 5.0 * y * (1.0 - 7.0 * y)));
    -x * x - (x * std::f64::consts::PI.sqrt()).ln() + series.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_gaussian_is_no_better_than_the_exact_curve() {
        // The exact δ of a Gaussian at ε (Balle and Wang 2018): Φ(1/2s - εs) - e^ε Φ(-1/2s - εs).
        let phi = |x: f64| libm::erfc(-x / SQRT_2) / 2.0;
        for sigma in [0.5, 1.0, 2.0, 5.0] {
            let epsilon = epsilon(sigma, 1.0, 1, 1e-5);
            let a = 1.0 / (2.0 * sigma);
            let delta = phi(a - epsilon * sigma) - epsilon.exp() * phi(-a - epsilon * sigma);
            assert!((1e-7..1e-5).contains(&delta), "σ {sigma}: ε {epsilon} has δ {delta}");
        }
    }

    #[test]
    fn more_noise_and_less_sampling_cost_less() {
        let all = |noise: [f64; 3]| noise.map(|s| epsilon(s, 0.01, 1000, 1e-5));
        let [a, b, c] = all([0.7, 1.0, 2.0]);
        assert!(a > b && b > c && c > 0.0, "{a} {b} {c}");
        assert!(epsilon(1.0, 0.02, 1000, 1e-5) > b);
        assert!(epsilon(1.0, 0.01, 2000, 1e-5) > b);
    }

    #[test]
    fn nothing_sent_costs_nothing_and_no_noise_has_no_bound() {
        assert_eq!(epsilon(1.0, 0.5, 0, 1e-5), 0.0);
        assert_eq!(epsilon(1.0, 0.0, 100, 1e-5), 0.0);
        assert_eq!(epsilon(0.0, 0.5, 1, 1e-5), f64::INFINITY);
    }

    #[test]
    fn the_tail_of_erfc_is_continuous() {
        let (below, above) = (log_erfc(25.0 - 1e-9), log_erfc(25.0));
        assert!((below - above).abs() < 1e-6, "{below} {above}");
    }
}
