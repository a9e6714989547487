//! The measurements of both nodes, and the file that keeps them: `<runs>/profiles/<model>-<device>...json`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cleave_shared::{
    checkpoint::write_atomic,
    profile::{ComputeProfile, Request},
};
use serde::{Deserialize, Serialize};

/// What `edge-node profile` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// SHA-256 of the model's spec.
    pub spec_hash: String,
    /// The model's family, for people.
    pub model: String,
    /// Samples of a request.
    pub batch: usize,
    /// Extent of what varies, such as the length of a sequence.
    pub length: usize,
    /// Bytes of the model's output for such a request.
    pub output_bytes: u64,
    /// How many times slower the edge was than what is in `edge`: see `edge.compute_scale`.
    pub scale: f64,
    pub edge: ComputeProfile,
    pub cloud: ComputeProfile,
    /// What gRPC and this machine add to a call, beside the link and the computation.
    pub host: HostCost,
    /// Share of right answers by split point and codec; empty if it was not measured.
    #[serde(default)]
    pub accuracy: Vec<Accuracy>,
}

/// A line through the times of calls that do nothing, on the network as it is, without the simulated link.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct HostCost {
    pub call_ms: f64,
    pub ms_per_megabyte: f64,
}

impl HostCost {
    /// For a call that carries so many bytes, both ways together, ms.
    pub fn ms(&self, bytes: u64) -> f64 {
        self.call_ms + self.ms_per_megabyte * bytes as f64 / 1e6
    }
}

/// Right answers through one codec at one cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    pub split_point: usize,
    pub codec: String,
    /// 0 to 1.
    pub share: f64,
}

impl Measured {
    /// Where measurements of this model on this device are kept, below the folder of runs.
    pub fn path(
        runs: &Path,
        spec_hash: &str,
        device: &str,
        threads: usize,
        of: Request,
    ) -> PathBuf {
        let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let device: String = device.chars().map(kept).collect();
        let device = device.split('-').filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-");
        let Request { batch, length, .. } = of;
        let hash = &spec_hash[..12.min(spec_hash.len())];
        let training = if of.training { "-training" } else { "" };
        let name = format!("{hash}-{device}-{threads}k-b{batch}-l{length}{training}.json");
        runs.join("profiles").join(name)
    }

    /// None if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let read = serde_json::from_slice(&bytes);
        let again = "measure again with edge-node profile";
        read.map(Some).map_err(|e| format!("{}: {e}; {again}", path.display()))
    }

    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        write_atomic(path, &text).map_err(|e| e.to_string())
    }

    /// Whether every one of these codecs was measured on both nodes.
    pub fn knows(&self, codecs: &[String]) -> bool {
        let known = |profile: &ComputeProfile, codec: &String| {
            profile.cuts.iter().all(|cut| cut.iter().any(|c| c.codec == *codec))
        };
        codecs.iter().all(|codec| known(&self.edge, codec) && known(&self.cloud, codec))
    }
}
