//! What a node's configuration makes it insist on in the handshake.

use super::Config;
use crate::wire::{PROTOCOL_VERSION, v1::Agreement};

impl Config {
    /// The agreement of a node with this configuration, for a cut and weights by their id.
    pub fn agreement(&self, split_point: usize, weights: &str) -> Agreement {
        Agreement {
            protocol_version: PROTOCOL_VERSION,
            spec_hash: self.model.hash(),
            spec: self.model.canonical(),
            split_point: split_point as u32,
            activation_codec: self.activation_codec().name().into(),
            gradient_codec: self.codec.gradient.clone(),
            weights: weights.into(),
            weight_format: self.quantize.weights.name().into(),
        }
    }
}
