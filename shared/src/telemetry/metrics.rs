//! Metrics in Prometheus' text format.

use std::{sync::OnceLock, thread, time::Duration};

use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::process;

/// Upper bounds of every histogram, s: from what one small layer takes to what a deadline may be.
const BUCKETS: [f64; 16] = [
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// How often what histograms have gathered is put into their buckets, so that it takes no more memory if nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's metrics as text; the first call starts collecting.
pub fn render() -> String {
    handle().render() + &process::render()
}

/// Starts collecting. Metrics set before are lost.
pub fn init() {
    handle();
}

fn handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS);
        let recorder = builder.expect("there are buckets").build_recorder();
        let handle = recorder.handle();
        // Fails only if another recorder was installed, which then has the metrics.
        let _ = metrics::set_global_recorder(recorder);
        // Both nodes have the version of the workspace.
        gauge!("cleave_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        upkeep(handle.clone());
        handle
    })
}

fn upkeep(handle: PrometheusHandle) {
    let body = move || {
        loop {
            thread::sleep(UPKEEP);
            handle.run_upkeep();
        }
    };
    let started = thread::Builder::new().name("metrics".into()).spawn(body);
    started.expect("the system can start a thread");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_process_are_always_there() {
        let version = format!("cleave_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        for _ in 0..2 {
            let text = render();
            assert!(text.contains(&version), "{text}");
            let families = text.lines().filter(|line| line.starts_with("# TYPE process_"));
            let expected = if cfg!(target_os = "linux") { 7 } else { 0 };
            assert_eq!(families.count(), expected, "{text}");
        }
    }
}
