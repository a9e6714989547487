//! Real models against the libraries they come from, cut at every stage: one module for each family.
//!
//! A script of `tests/python` makes the library's own model with random weights, saves it as its users
//! do, and runs and trains it; these tests load the file and must find the same numbers.

mod bert;
mod cnn;
mod decoder;
mod linear_regression;
mod lora;
mod losses;
mod reference;
mod rnn;
mod rnn_memory;
mod splits;
