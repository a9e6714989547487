//! Samples held in memory by column: what small sets become when they are read.

use bytes::Bytes;

use super::{Dataset, Target};
use crate::model::Port;

/// One input of every sample, or every label: `samples × bytes of one`, little-endian.
#[derive(Debug, Clone)]
pub struct Column {
    pub port: Port,
    pub data: Bytes,
}

impl Column {
    pub fn floats(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { port: Port::float(name, shape), data: data.into() }
    }

    /// INT64 `[length]` a sample.
    pub fn integers(name: &str, length: usize, values: &[i64]) -> Self {
        Self { port: Port::tokens(name, length), data: integer_bytes(values) }
    }

    fn sample(&self, index: usize) -> &[u8] {
        let size = self.port.bytes();
        &self.data[index * size..][..size]
    }
}

/// INT64 values, little-endian.
pub fn integer_bytes(values: &[i64]) -> Bytes {
    values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// A data set in memory.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub samples: usize,
    pub inputs: Vec<Column>,
    pub target: Target,
    /// `samples` labels as [`Target::label`] says.
    pub labels: Bytes,
}

impl Dataset for Table {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples
    }

    fn inputs(&self) -> Vec<Port> {
        self.inputs.iter().map(|c| c.port.clone()).collect()
    }

    fn target(&self) -> Target {
        self.target.clone()
    }

    fn write_input(&self, index: usize, input: usize, out: &mut Vec<u8>) {
        out.extend(self.inputs[input].sample(index));
    }

    fn write_label(&self, index: usize, out: &mut Vec<u8>) {
        let size = self.labels.len() / self.samples;
        out.extend(&self.labels[index * size..][..size]);
    }
}
