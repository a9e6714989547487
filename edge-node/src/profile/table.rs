//! What was measured, for people.

use std::fmt::Write;

use cleave_shared::profile::Spread;

use crate::plan::Measured;

/// A line for each stage, and one for each codec.
pub fn render(measured: &Measured) -> String {
    let Measured { model, batch, edge, cloud, scale, host, .. } = measured;
    let mut text = format!(
        "{model}, batch {batch}: median ms (least to most)\nedge  {} × {scale}, cloud  {}\n\n",
        edge.device, cloud.device
    );
    let widest = edge.stages.iter().map(|s| s.name.len()).max().unwrap_or(0).max(5);
    let _ =
        writeln!(text, "  {:<widest$}  {:>28}  {:>28}", "stage", "edge forward", "cloud forward");
    for (own, there) in edge.stages.iter().zip(&cloud.stages) {
        let _ = writeln!(
            text,
            "  {:<widest$}  {:>28}  {:>28}",
            own.name,
            spread(own.forward),
            spread(there.forward)
        );
        if let (Some(own), Some(there)) = (own.training, there.training) {
            let _ = writeln!(
                text,
                "  {:<widest$}  {:>28}  {:>28}",
                "  backward",
                spread(own.backward),
                spread(there.backward)
            );
        }
    }
    let total = |profile: &cleave_shared::profile::ComputeProfile| {
        profile.forward_ms(0..profile.stages.len())
    };
    let _ = writeln!(text, "  {:<widest$}  {:>28.3}  {:>28.3}\n", "all", total(edge), total(cloud));
    let _ = writeln!(text, "  cut  codec            bytes  edge encodes  cloud decodes");
    for (split, (own, there)) in edge.cuts.iter().zip(&cloud.cuts).enumerate() {
        for (own, there) in own.iter().zip(there) {
            let _ = writeln!(
                text,
                "  {split:>3}  {:<11} {:>10}  {:>12.3}  {:>13.3}",
                own.codec, own.bytes, own.encode.median_ms, there.decode.median_ms
            );
        }
    }
    let _ = writeln!(
        text,
        "\na call that does nothing: {:.3} ms, and {:.3} ms for each MB",
        host.call_ms, host.ms_per_megabyte
    );
    for accuracy in &measured.accuracy {
        let (split, codec) = (accuracy.split_point, &accuracy.codec);
        let _ = writeln!(text, "accuracy at {split} through {codec}: {:.4}", accuracy.share);
    }
    text
}

fn spread(of: Spread) -> String {
    format!("{:.3} ({:.3} to {:.3})", of.median_ms, of.least_ms, of.most_ms)
}
