//! The same for a training step: split point, codec and number of micro-batches.
//!
//! A step is simulated as the pipeline runs it (1F1B: Narayanan et al., SOSP 2019): the edge computes, the
//! uplink carries, the cloud computes, the downlink carries, each one thing at a time; the edge prefers a
//! backward pass to the next forward one. Then the edge commits, and tells the cloud.

use super::{HostCost, Measured, Network, search};

/// Numbers of micro-batches that are looked at.
const MICRO_BATCHES: [u32; 6] = [1, 2, 4, 8, 16, 32];

/// One way to take a step, and the time that it would take.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepPlan {
    pub split: usize,
    /// Of activations and of cut-layer gradients.
    pub codec: String,
    pub micro_batches: u32,
    pub step_ms: f64,
}

/// What one micro-batch takes of each resource, ms.
#[derive(Debug, Clone, Copy)]
struct Parts {
    head_forward: f64,
    head_backward: f64,
    /// Forward, loss and backward.
    tail: f64,
    /// How long a transfer occupies its direction, and how much later it arrives.
    up: (f64, f64),
    down: (f64, f64),
}

/// All ways to take a step of the measured batch, the quickest first; `fixed` is the number of micro-batches, if
/// it is not to be chosen. Empty if training was not measured.
pub fn plan_step(measured: &Measured, network: &Network, fixed: Option<u32>) -> Vec<StepPlan> {
    let counts = fixed.map_or_else(|| MICRO_BATCHES.to_vec(), |count| vec![count]);
    let stages = measured.edge.stages.len();
    let mut found = Vec::new();
    // Training needs something on both sides of the cut.
    for split in 1..stages {
        for codec in measured.edge.cuts.get(split).into_iter().flatten() {
            for &micro_batches in counts.iter().filter(|&&n| n as usize <= measured.batch) {
                let Some(parts) = parts(measured, network, split, &codec.codec, micro_batches)
                else {
                    continue;
                };
                let step_ms = step(parts, micro_batches as usize) + commit(measured.host, network);
                let codec = codec.codec.clone();
                found.push(StepPlan { split, codec, micro_batches, step_ms });
            }
        }
    }
    found.sort_by(|a, b| a.step_ms.total_cmp(&b.step_ms));
    found
}

fn parts(
    measured: &Measured,
    network: &Network,
    split: usize,
    codec: &str,
    micro_batches: u32,
) -> Option<Parts> {
    let stages = measured.edge.stages.len();
    let share = 1.0 / f64::from(micro_batches);
    let own = measured.edge.cuts.get(split)?.iter().find(|c| c.codec == codec)?;
    let there = measured.cloud.cuts.get(split)?.iter().find(|c| c.codec == codec)?;
    let (forward, backward) = measured.edge.training_ms(0..split)?;
    let (tail_forward, tail_backward) = measured.cloud.training_ms(split..stages)?;
    let (edge, cloud) = (measured.scale * share, share);
    // The gradient has the activation's shape: as many bytes.
    let bytes = (own.bytes as f64 * share) as u64;
    Some(Parts {
        head_forward: edge * (forward + own.encode.median_ms),
        head_backward: edge * (backward + own.decode.median_ms),
        tail: cloud * (tail_forward + tail_backward)
            + cloud * (there.encode.median_ms + there.decode.median_ms),
        up: transfer(&network.up, bytes + search::REQUEST_OVERHEAD, measured.host),
        down: transfer(&network.down, bytes + search::REPLY_OVERHEAD, measured.host),
    })
}

/// How long a transfer occupies a direction, and how much later it arrives.
fn transfer(curve: &super::Curve, bytes: u64, host: HostCost) -> (f64, f64) {
    let delay = curve.delay_ms();
    (
        (curve.ms(bytes) - delay).max(0.0) + host.ms_per_megabyte * bytes as f64 / 1e6,
        delay + host.call_ms,
    )
}

/// The commit's message and its answer.
fn commit(host: HostCost, network: &Network) -> f64 {
    let small = search::REPLY_OVERHEAD;
    network.up.ms(small) + network.down.ms(small) + host.call_ms
}

/// From the first forward pass to the last backward pass.
fn step(parts: Parts, count: usize) -> f64 {
    let (mut edge, mut up, mut cloud, mut down) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    // When the gradient of each micro-batch that was sent is there, in order.
    let mut gradients: Vec<f64> = Vec::with_capacity(count);
    let mut done = 0;
    while done < count {
        let next = gradients.get(done).copied();
        let sent = gradients.len();
        // A backward pass if one can begin now, or if there is nothing else to do.
        if next.is_some_and(|at| at <= edge) || sent == count {
            edge = edge.max(next.unwrap_or(edge)) + parts.head_backward;
            done += 1;
            continue;
        }
        edge += parts.head_forward;
        up = up.max(edge) + parts.up.0;
        cloud = cloud.max(up + parts.up.1) + parts.tail;
        down = down.max(cloud) + parts.down.0;
        gradients.push(down + parts.down.1);
    }
    edge
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(head: f64, tail: f64, busy: f64, delay: f64) -> Parts {
        Parts {
            head_forward: head / 2.0,
            head_backward: head / 2.0,
            tail,
            up: (busy, delay),
            down: (busy, delay),
        }
    }

    #[test]
    fn one_micro_batch_takes_the_sum_and_many_hide_the_transfers() {
        let whole = parts(100.0, 100.0, 100.0, 5.0);
        assert_eq!(step(whole, 1), 410.0);
        let quarter = parts(25.0, 25.0, 25.0, 5.0);
        let pipelined = step(quarter, 4);
        assert!((100.0..250.0).contains(&pipelined), "{pipelined}");
    }

    proptest! {
        /// Never quicker than the busiest resource, never slower than one after the other.
        #[test]
        fn a_pipeline_lies_between_its_bounds(
            head in 0.1f64..50.0, tail in 0.1f64..50.0, busy in 0.0f64..50.0, delay in 0.0f64..50.0,
            count in 1usize..40,
        ) {
            let found = step(parts(head, tail, busy, delay), count);
            let n = count as f64;
            let busiest = head.max(tail).max(busy) * n;
            let one_by_one = (head + tail + 2.0 * busy + 2.0 * delay) * n;
            prop_assert!(found >= busiest - 1e-6, "{found} {busiest}");
            prop_assert!(found <= one_by_one + 1e-6, "{found} {one_by_one}");
        }
    }
}
