//! Jitter, block errors, outages, traces and slots against arithmetic.

use super::*;

#[test]
fn jitter_has_its_mean_and_deviation_and_keeps_order() {
    let mut profile = plain(0, 25.0);
    let mut delays = |jitter: Jitter, seed| -> Vec<f64> {
        profile.uplink.jitter = jitter;
        let (mut lab, _, connection) = lab(&profile, seed);
        (0..20_000).map(|_| up(&mut lab, connection, 1)).collect()
    };
    let stats = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        (mean, variance.sqrt())
    };
    let normal = delays(Jitter::Normal { std_ms: 4.0 }, 7);
    let (mean, std) = stats(&normal);
    assert!((mean - 25.0).abs() < 0.15 && (std - 4.0).abs() < 0.15, "{mean} {std}");
    assert!(normal.iter().all(|d| (13.0..=37.0).contains(d)));
    assert_eq!(normal, delays(Jitter::Normal { std_ms: 4.0 }, 7));
    assert_ne!(normal, delays(Jitter::Normal { std_ms: 4.0 }, 8));

    let pareto = delays(Jitter::Pareto { mean_ms: 3.0, shape: 3.0 }, 7);
    let (mean, _) = stats(&pareto);
    assert!((mean - 28.0).abs() < 0.3, "{mean}");
    let far = pareto.iter().filter(|d| **d > 25.0 + 20.0).count() as f64 / 20_000.0;
    // Survival function (1 + x / scale)^-shape with scale = mean (shape - 1) = 6.
    close(far, (1.0f64 + 20.0 / 6.0).powi(-3), 0.25);

    let samples = delays(Jitter::Samples([1.0, 2.5].into()), 7);
    assert_eq!(&samples[..4], [26.0, 27.5, 26.0, 27.5]);
}

#[test]
fn block_errors_are_delays() {
    let mut profile = plain(0, 10.0);
    let harq = |bler| Harq {
        bler,
        round_ms: 8.0,
        max_rounds: 2,
        combining_gain: 0.5,
        rlc_ms: 40.0,
        block_bytes: 1_000,
    };
    profile.uplink.harq = Some(harq(0.2));
    let (mut lab, device, connection) = lab(&profile, 3);
    let delays: Vec<f64> = (0..50_000).map(|_| up(&mut lab, connection, 1)).collect();
    let share = |ms: f64| delays.iter().filter(|d| **d == ms).count() as f64 / 50_000.0;
    // First round fails with 0.2, the second with 0.1, the third with 0.05.
    close(share(10.0), 0.8, 0.02);
    close(share(18.0), 0.2 * 0.9, 0.05);
    close(share(26.0), 0.2 * 0.1 * 0.95, 0.15);
    close(share(66.0), 0.2 * 0.1 * 0.05, 0.6);
    let uplink = lab.status(device).uplink;
    close(uplink.harq_retransmissions as f64, 50_000.0 * (0.2 + 0.02), 0.05);
    assert!(uplink.rlc_retransmissions > 10);
    assert_eq!(lab.status(device).downlink.harq_retransmissions, 0);
}

#[test]
fn an_outage_silences_both_ways_and_then_drains() {
    let mut profile = plain(80_000_000, 5.0);
    profile.outage = Some(Outage { every_s: 1.0, duration_ms: 100.0, spread_ms: 0.0 });
    let (mut lab, device, connection) = lab(&profile, 5);
    let ways = [Way::Uplink, Way::Downlink];
    let transfers = ways.map(|way| Transfer { connection, way, bytes: 100_000_000 });
    let took = lab.transfer(&transfers).expect("arrives");
    assert_eq!(took[0], took[1], "both directions lose the same time");
    let status = lab.status(device);
    let outage_s = status.uplink.outage_ns as f64 / 1e9;
    close(took[0].as_secs_f64(), 10.0 + outage_s + 0.005, 1e-3);
    assert!((0.3..3.0).contains(&outage_s), "{outage_s} s of about 1");
    assert_eq!(status.uplink.outage_ns, status.downlink.outage_ns);
}

/// A saturated link delivers what the trace has, in each 100 ms.
#[test]
fn a_trace_is_reproduced() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/traces/");
    let path = |name: &str| std::path::PathBuf::from(format!("{folder}{name}"));
    let csv = |name: &str| Trace::read_csv(&path(name), AtEnd::Loop).expect("committed");
    let pair =
        Trace::read_mahimahi(&path("lowband-drive.up"), &path("lowband-drive.down"), AtEnd::Loop);
    for trace in [csv("midband-walk.csv"), csv("mmwave-walk.csv"), pair.expect("committed")] {
        let mut profile = plain(0, 0.0);
        profile.trace = Some(std::sync::Arc::new(Trace { rtt: None, ..trace.clone() }));
        let (mut lab, device, connection) = lab(&profile, 1);
        let ways = [Way::Uplink, Way::Downlink];
        let bulk = ways.map(|way| Transfer { connection, way, bytes: u64::MAX });
        let mut before = [0, 0];
        for window in 1..=700u64 {
            lab.run_until(&bulk, Duration::from_millis(100 * window));
            let status = lab.status(device);
            let now = [status.uplink.delivered_bytes, status.downlink.delivered_bytes];
            let (from, to) = (100_000_000 * (window - 1), 100_000_000 * window);
            for (way, curve) in [(0, &trace.uplink), (1, &trace.downlink)] {
                let expected = curve.bytes(from, to) as f64;
                let got = (now[way] - before[way]) as f64;
                // A packet may be under way at either end of the window.
                assert!(
                    (got - expected).abs() <= 0.02 * expected + 1_500.0,
                    "{} way {way} window {window}: {got} of {expected}",
                    trace.name
                );
            }
            before = now;
        }
    }
}

#[test]
fn slots_and_grants_shape_the_time_of_a_byte() {
    let midband = Profile::builtin("5g-midband").expect("built in");
    let trips = |mut profile: Profile| {
        profile.uplink.harq = None;
        profile.downlink.harq = None;
        let (mut lab, _, connection) = lab(&profile, 1);
        let mut trips: Vec<f64> = (0..500)
            .map(|_| {
                lab.sleep(Duration::from_micros(61_003));
                lab.exchange(connection, 1, 1).expect("arrives").as_secs_f64() * 1e3
            })
            .collect();
        trips.sort_by(f64::total_cmp);
        trips
    };
    let granted = trips(Profile::builtin("5g-sa-configured-grant").expect("built in"));
    let asked = trips(midband.clone());
    let delay = midband.delay_ms();
    // Configured: the next own slot, at most one pattern of 2.5 ms, and its symbols.
    assert!(granted[0] >= delay && granted[499] <= delay + 2.5 + 1.5, "{granted:?}");
    // Requests: an occasion within 2.5 ms (and a slot for it), 2 ms of grant, the next uplink slot.
    assert!(asked[0] >= delay + 2.0 && asked[499] <= delay + 2.0 + 3.0 * 2.5, "{asked:?}");
    assert!(asked[250] > granted[250] + 1.5, "{} {}", asked[250], granted[250]);
    // Saturated, the uplink gets its rate within the slots that it has.
    let mut bulk = midband;
    bulk.uplink.harq = None;
    bulk.transport = Transport::Open;
    bulk.packet.overhead_bytes = 0;
    let (mut lab, _, connection) = lab(&bulk, 1);
    let took = up(&mut lab, connection, 60_000_000);
    close(took, 8_000.0, 0.005);
}
