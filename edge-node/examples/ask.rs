//! Asks a running edge, as any program could: one batch of zeros in, the outputs and the time of each part out.
//!
//!     cargo run -p edge-node --example ask -- [http://HOST:PORT [MODEL]]
//!
//! All it needs are the messages of the Open Inference Protocol, which `edge_node::proto` has; a client in a
//! crate of its own makes them of `proto/inference` with tonic-prost-build.

use std::{error::Error, process::ExitCode, time::Duration};

use edge_node::proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor, model_metadata_response::TensorMetadata,
};
use tonic::transport::Endpoint;

/// Longest that connecting, and then each call, may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let edge = words.next().unwrap_or_else(|| "http://127.0.0.1:8001".into());
    let model = words.next().unwrap_or_else(|| "digits".into());
    match ask(&edge, model).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ask: {edge}: {}", one_line(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn ask(edge: &str, model: String) -> Result<(), Box<dyn Error>> {
    let endpoint = Endpoint::from_shared(edge.to_string())?;
    let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await?;
    let mut client = GrpcInferenceServiceClient::new(channel);

    // The model says what it takes; -1 is an extent that the request chooses.
    let asked = ModelMetadataRequest { name: model.clone(), version: String::new() };
    let metadata = client.model_metadata(asked).await?.into_inner();
    let inputs: Vec<_> = metadata.inputs.iter().filter(|i| i.datatype != "BYTES").collect();
    let request = ModelInferRequest {
        model_name: model,
        inputs: inputs.iter().map(|input| zeros(input)).collect(),
        // Row-major, little-endian, one for each input.
        raw_input_contents: inputs.iter().map(|i| vec![0; bytes(i)].into()).collect(),
        ..Default::default()
    };
    show(&client.model_infer(request).await?.into_inner());
    Ok(())
}

/// One sample of this input; what else varies, such as the length of a sequence, is 1 as well.
fn zeros(input: &TensorMetadata) -> InferInputTensor {
    InferInputTensor {
        name: input.name.clone(),
        datatype: input.datatype.clone(),
        shape: input.shape.iter().map(|&extent| extent.max(1)).collect(),
        ..Default::default()
    }
}

fn bytes(input: &TensorMetadata) -> usize {
    let element = if input.datatype == "INT64" { 8 } else { 4 };
    input.shape.iter().map(|&extent| extent.max(1) as usize).product::<usize>() * element
}

fn show(answer: &ModelInferResponse) {
    for (output, raw) in answer.outputs.iter().zip(&answer.raw_output_contents) {
        let floats =
            raw.chunks_exact(4).filter_map(|b| Some(f32::from_le_bytes(b.try_into().ok()?)));
        let first: Vec<_> = floats.take(5).map(|value| format!("{value:.4}")).collect();
        println!("{} {:?}: {} ...", output.name, output.shape, first.join(" "));
    }
    println!("weights {}", answer.model_version);
    for name in
        ["split_point", "head_ms", "encode_ms", "uplink_ms", "tail_ms", "downlink_ms", "decode_ms"]
    {
        match answer.parameters.get(name).and_then(|p| p.parameter_choice.as_ref()) {
            Some(ParameterChoice::Int64Param(value)) => println!("{name:12} {value:7}"),
            Some(ParameterChoice::DoubleParam(value)) => println!("{name:12} {value:10.2}"),
            _ => {}
        }
    }
}

/// What the edge says of a refused call; of others, the cause at the end of the chain.
fn one_line(error: &(dyn Error + 'static)) -> String {
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        return format!("{:?}: {}", status.code(), status.message());
    }
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    format!("{error}: {last}")
}
