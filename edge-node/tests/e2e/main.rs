//! End-to-end tests: the real binaries as processes, over real sockets.
//!
//! `nodes` starts and stops them. They are one test binary, so that it is linked once.

mod availability;
mod bottleneck;
mod chaos;
mod clients;
mod cloud_protocol;
mod codecs;
mod command_line;
mod copies;
mod encoder;
mod ending;
mod exits;
mod faulty_link;
mod generation;
mod groups;
mod handshakes;
mod hostile;
mod infer;
mod inference;
mod inspect;
mod large;
mod link_proxy;
mod micro_batches;
mod nodes;
mod optimisation;
mod page;
mod planning;
mod privacy;
mod reconfigure;
mod security;
mod steps;
mod text;
mod topologies;
mod training;
mod u_shaped;
mod watching;
