//! The model's configuration as Triton describes models, for clients that ask for it before they send anything.

use cleave_shared::{model::Port, tensor::DType};
use serde_json::{Value, json};

use super::super::{
    ModelInfo,
    request::{TEXT, metadata_shape},
};
use crate::proto::inference::{DataType, ModelConfig, ModelInput, ModelOutput};

fn data_type(port: &Port) -> DataType {
    match port.dtype {
        DType::I64 => DataType::TypeInt64,
        DType::I32 => DataType::TypeInt32,
        _ => DataType::TypeFp32,
    }
}

/// Extents of one sample; -1 for one that varies.
fn dims(port: &Port) -> Vec<i64> {
    metadata_shape(port).split_off(1)
}

/// As a message.
pub fn message(info: &ModelInfo) -> ModelConfig {
    let input = |port: &Port| ModelInput {
        name: port.name.clone(),
        data_type: data_type(port).into(),
        dims: dims(port),
        // Texts may stand for token ids.
        optional: port.optional || info.takes_text,
    };
    let text = info.takes_text.then(|| ModelInput {
        name: TEXT.into(),
        data_type: DataType::TypeString.into(),
        dims: vec![1],
        optional: true,
    });
    let output = |port: &Port| ModelOutput {
        name: port.name.clone(),
        data_type: data_type(port).into(),
        dims: dims(port),
    };
    ModelConfig {
        name: info.name.clone(),
        platform: info.platform.clone(),
        backend: info.platform.clone(),
        max_batch_size: i32::try_from(info.max_batch).unwrap_or(i32::MAX),
        input: info.inputs.iter().map(input).chain(text).collect(),
        output: info.outputs.iter().map(output).collect(),
    }
}

/// As JSON.
pub fn json(info: &ModelInfo) -> Value {
    let config = message(info);
    let name = |data_type: i32| DataType::try_from(data_type).unwrap_or_default().as_str_name();
    let input = |i: &ModelInput| {
        json!({
            "name": i.name, "data_type": name(i.data_type), "dims": i.dims, "optional": i.optional
        })
    };
    let output =
        |o: &ModelOutput| json!({ "name": o.name, "data_type": name(o.data_type), "dims": o.dims });
    json!({
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "max_batch_size": config.max_batch_size,
        "input": config.input.iter().map(input).collect::<Vec<_>>(),
        "output": config.output.iter().map(output).collect::<Vec<_>>(),
    })
}
