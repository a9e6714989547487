//! What an activation tells about its input, and how to make it tell less.
//!
//! Three measures, each of which can be had without the others: [`noise`] bounds what one sample's
//! activation can say and adds Gaussian noise to it, [`accountant`] says what that is worth as
//! (ε, δ), and [`nopeek`] is a penalty by which the head learns activations that depend less on its
//! input. [`PrivacySpec`] is what a user sets. All of it happens on the edge, before anything is
//! sent; labels are sent as they are, unless the topology keeps them on the edge.

pub mod accountant;
mod noise;
pub mod nopeek;
mod spec;

pub use self::{
    noise::{NoiseKey, Shield},
    spec::PrivacySpec,
};
