//! Cleave's edge node: the head of a split model, and the door for its users.
//!
//! An inference request walks [`serve`] (Open Inference Protocol) → [`predict`] (head, on a compute
//! thread) → [`cloud`] (the split protocol, across the simulated link) and the same way back. What
//! is being served is a [`deploy::Deployment`], swapped whole when the configuration or the
//! deployed weights change ([`reconfigure`]). The way of a model is in five steps over the folder of a
//! run: [`prepare`] its data, [`train`] it split, [`validate`] it, [`tune`] its settings, and [`serve`].
//! [`run_page`] shows a run afterwards, [`page`] the edge while it serves.
//! Several edges that learn one model together run [`group`] in place of a training run of their own.
//! [`exits`] lets the edge answer alone for samples that it is sure of, and without a cloud;
//! [`bottleneck`] trains a codec for the cut of a model.
//! [`optimize`] makes models smaller and measures them, [`audit`] shows what activations give away,
//! [`inspect`] shows what a model costs and where it can be cut, [`profile`] measures it on both nodes,
//! [`plan`] predicts each cut and chooses one, [`adapt`] keeps the choice right while the edge serves, [`client`] is a client of a
//! running edge, which [`infer`] asks and [`evaluate`] measures with it, [`demo`] all of it at once, [`link`] the simulated link on its own. [`stack`] is the
//! picture of how the layers are put together, [`doctor`] looks whether they will be.

#![forbid(unsafe_code)]

pub mod adapt;
pub mod audit;
mod bar;
pub mod bottleneck;
mod certs;
mod chosen;
pub mod cli;
pub mod client;
pub mod cloud;
pub mod demo;
pub mod deploy;
mod doctor;
pub mod evaluate;
pub mod exits;
pub mod generate;
mod group;
pub mod infer;
pub mod inspect;
mod jsonl;
pub mod link;
mod operations;
pub mod optimize;
pub mod page;
pub mod plan;
mod ports;
pub mod predict;
pub mod prepare;
pub mod profile;
pub mod proto;
pub mod reconfigure;
pub mod report;
pub mod run_page;
pub mod serve;
pub mod split_model;
pub mod stack;
mod svg;
pub mod train;
pub mod tune;
pub mod validate;
