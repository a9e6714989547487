"""The peer's edge: torch_edge.py MODEL SPLIT_POINT THREADS CLOUD_PORT

The Open Inference Protocol for its clients, whom it answers with what the cloud makes of its head's output.
"""

import pathlib
import sys

import grpc
import torch
import torch_models
import torch_server

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "clients/python/src/cleave/_oip"))
import messages_pb2 as oip


class Edge:
    def __init__(self, halves, cloud_port):
        self.head, self.input_shape, self.output_shape = halves.head, halves.input_shape, halves.output_shape
        self.cloud = grpc.insecure_channel(f"127.0.0.1:{cloud_port}")
        self.tail = self.cloud.unary_unary("/split.Cloud/Infer")

    def server_live(self, request, context):
        return oip.ServerLiveResponse(live=True)

    def model_metadata(self, request, context):
        describe = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=request.name,
            platform="pytorch",
            inputs=[describe(name="input", datatype="FP32", shape=[-1, *self.input_shape])],
            outputs=[describe(name="logits", datatype="FP32", shape=[-1, *self.output_shape])],
        )

    def model_infer(self, request, context):
        samples = torch_models.of_bytes(request.raw_input_contents[0], self.input_shape)
        with torch.inference_mode():
            activation = torch_models.bytes_of(self.head(samples))
        output = oip.ModelInferResponse.InferOutputTensor(
            name="logits", datatype="FP32", shape=[len(samples), *self.output_shape]
        )
        return oip.ModelInferResponse(
            model_name=request.model_name, id=request.id, outputs=[output], raw_output_contents=[self.tail(activation)]
        )

    def methods(self):
        handler = lambda answer, request, response: grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request.FromString, response_serializer=response.SerializeToString)
        return {
            "ServerLive": handler(self.server_live, oip.ServerLiveRequest, oip.ServerLiveResponse),
            "ModelMetadata": handler(self.model_metadata, oip.ModelMetadataRequest, oip.ModelMetadataResponse),
            "ModelInfer": handler(self.model_infer, oip.ModelInferRequest, oip.ModelInferResponse),
        }


def main(model, split_point, threads, cloud_port):
    torch.set_num_threads(int(threads))
    halves = torch_models.Halves(model, int(split_point))
    torch_server.serve(
        "inference.GRPCInferenceService", Edge(halves, cloud_port).methods(),
        torch=torch.__version__, parameters=halves.parameters, activation_bytes=halves.cut_bytes,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
