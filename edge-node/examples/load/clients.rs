//! Clients of an edge over the Open Inference Protocol. They know nothing of what answers: Cleave's
//! edge and any other are asked by the same program.

use bytes::Bytes;
use clap::Args;
use cleave_shared::{
    tensor::{DType, byte_length},
    wire::NamedTensors,
};
use edge_node::proto::inference::{
    ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor, model_metadata_response::TensorMetadata,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    closed_loop::{self, Caller, Span, Summary},
    sample::floats,
};

/// Largest sample that is sent: a bound on what the peer can have this program allocate.
const MAX_SAMPLE_BYTES: usize = 64 << 20;

type Edge = GrpcInferenceServiceClient<Channel>;

#[derive(Args)]
pub struct ClientArgs {
    /// Port on this machine where the edge answers over gRPC
    #[arg(long)]
    port: u16,
    /// The name that it serves its model by
    #[arg(long, default_value = "digits")]
    model: String,
    /// Requests under way at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// HTTP/2 connections, which the clients share
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    #[command(flatten)]
    span: Span,
}

pub async fn measure(args: ClientArgs) -> Result<Summary, String> {
    let ClientArgs { port, model, clients, connections, span } = args;
    let mut edges = Vec::with_capacity(connections.into());
    for _ in 0..connections {
        edges.push(connect(port).await?);
    }
    let metadata = metadata(edges[0].clone(), model.clone()).await?;
    let output_bytes = output_bytes(&metadata)?;
    let client = |(number, edge): (u16, &Edge)| {
        let request = request(&metadata, model.clone(), number.into())?;
        Ok(Client { edge: edge.clone(), request, output_bytes })
    };
    let clients = (0..clients).zip(edges.iter().cycle()).map(client);
    Ok(closed_loop::run(clients.collect::<Result<Vec<Client>, String>>()?, span).await)
}

async fn connect(port: u16) -> Result<Edge, String> {
    let address = format!("http://127.0.0.1:{port}");
    let endpoint = Endpoint::from_shared(address).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await;
    Ok(Edge::new(channel.map_err(|_| format!("no edge answers at port {port}"))?))
}

async fn metadata(mut edge: Edge, name: String) -> Result<ModelMetadataResponse, String> {
    let request = ModelMetadataRequest { name, version: String::new() };
    let reply = edge.model_metadata(request).await;
    Ok(reply.map_err(|status| format!("the edge's metadata: {status}"))?.into_inner())
}

/// One sample, of values that no other seed has.
fn request(
    metadata: &ModelMetadataResponse,
    model_name: String,
    seed: u64,
) -> Result<ModelInferRequest, String> {
    let drawn = |input: &TensorMetadata| Ok((input.name.clone(), floats(extents(input)?, seed)));
    let samples = metadata.inputs.iter().map(drawn).collect::<Result<NamedTensors, String>>()?;
    let described = samples.iter().map(|(name, tensor)| InferInputTensor {
        name: name.clone(),
        datatype: tensor.dtype().name().into(),
        shape: tensor.shape().iter().map(|&extent| extent as i64).collect(),
        ..Default::default()
    });
    Ok(ModelInferRequest {
        model_name,
        inputs: described.collect(),
        raw_input_contents: samples.into_iter().map(|(_, tensor)| tensor.into_data()).collect(),
        ..Default::default()
    })
}

/// The shape of one sample, the batch first.
fn extents(tensor: &TensorMetadata) -> Result<Vec<usize>, String> {
    let TensorMetadata { name, datatype, shape } = tensor;
    let one = |(place, &extent): (usize, &i64)| match place {
        0 => Some(1),
        _ => usize::try_from(extent).ok(),
    };
    let fits = |extents: &Vec<usize>| {
        let bytes = byte_length(DType::F32, extents);
        datatype == DType::F32.name() && bytes.is_ok_and(|bytes| bytes <= MAX_SAMPLE_BYTES)
    };
    let extents = shape.iter().enumerate().map(one).collect::<Option<Vec<usize>>>();
    extents.filter(fits).ok_or_else(|| {
        format!("{name} is {datatype} {shape:?}: only FP32 of fixed extents is asked about")
    })
}

fn output_bytes(metadata: &ModelMetadataResponse) -> Result<usize, String> {
    let elements = |output: &TensorMetadata| Ok(extents(output)?.iter().product::<usize>());
    let counts = metadata.outputs.iter().map(elements).collect::<Result<Vec<usize>, String>>()?;
    Ok(counts.iter().sum::<usize>() * DType::F32.size())
}

struct Client {
    edge: Edge,
    request: ModelInferRequest,
    /// Of each answer.
    output_bytes: usize,
}

impl Caller for Client {
    async fn ask(&mut self) -> Result<(), String> {
        let reply = self.edge.model_infer(self.request.clone()).await;
        let reply = reply.map_err(|status| format!("{:?}", status.code()))?;
        let bytes: usize = reply.get_ref().raw_output_contents.iter().map(Bytes::len).sum();
        match bytes == self.output_bytes {
            true => Ok(()),
            false => Err(format!("an output of {bytes} bytes")),
        }
    }
}
