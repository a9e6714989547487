//! What a call costs beside link and computation: gRPC, HTTP/2, copies, the machine's own network.

use std::time::Duration;

use cleave_shared::profile::Spread;
use tonic::Status;

use crate::{cloud::CloudClient, plan::HostCost};

const CALLS: usize = 30;
const LARGE: usize = 512 << 10;
const SMALL: usize = 256;
const PAUSE: Duration = Duration::from_millis(8);

/// A line through small and large probes, both ways together.
pub async fn measure(cloud: &CloudClient) -> Result<HostCost, Status> {
    let mut times = [Vec::new(), Vec::new()];
    // The first of each opens the connection and is not counted.
    for call in 0..=CALLS {
        for (times, bytes) in times.iter_mut().zip([SMALL, LARGE]) {
            // Requests are apart: threads sleep, and have to be woken.
            tokio::time::sleep(PAUSE).await;
            let (up, down) = cloud.probe(bytes, SMALL).await?;
            if call > 0 {
                times.push(up + down);
            }
        }
    }
    let [small, large] = times.map(|t| Spread::of(t).median_ms);
    let ms_per_megabyte = ((large - small) / (LARGE - SMALL) as f64 * 1e6).max(0.0);
    Ok(HostCost { call_ms: small, ms_per_megabyte })
}
