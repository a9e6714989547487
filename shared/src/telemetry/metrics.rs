//! Metrics in Prometheus' text format.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// The process's metrics as text; the first call starts collecting.
pub fn render() -> String {
    handle().render()
}

/// Starts collecting. Metrics set before are lost.
pub fn init() {
    handle();
}

fn handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // Fails only if another recorder was installed, which then has the metrics.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}
