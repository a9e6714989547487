"""The peer's cloud: torch_cloud.py MODEL SPLIT_POINT THREADS

An activation's bytes in, those of the output out.
"""

import sys

import grpc
import torch
import torch_models
import torch_server


def main(model, split_point, threads):
    torch.set_num_threads(int(threads))
    halves = torch_models.Halves(model, int(split_point))
    tail, shape = halves.tail, halves.cut_shape

    def infer(activation, _):
        with torch.inference_mode():
            return torch_models.bytes_of(tail(torch_models.of_bytes(activation, shape)))

    # Without serializers, a message is its bytes.
    torch_server.serve("split.Cloud", {"Infer": grpc.unary_unary_rpc_method_handler(infer)})


if __name__ == "__main__":
    main(*sys.argv[1:])
