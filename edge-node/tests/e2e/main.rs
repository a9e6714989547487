//! End-to-end tests: the real binaries as processes, over real sockets.
//!
//! `nodes` starts and stops them. They are one test binary, so that it is linked once.

mod clients;
mod cloud_protocol;
mod command_line;
mod copies;
mod encoder;
mod generation;
mod inference;
mod inspect;
mod large;
mod link_proxy;
mod nodes;
mod optimisation;
mod reconfigure;
mod steps;
mod text;
mod training;
mod watching;
