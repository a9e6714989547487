"""One of two processes that train one model with PyTorch's distributed RPC, on its way in PyTorch's RPC tutorials.

    torch_rpc.py head|tail PORT tcp|any MODEL SPLIT_POINT BATCH THREADS

The tail and the loss are an object in `tail`; `head` has the samples and the head, and drives: an RPC for the loss,
distributed autograd's backward pass over both, and the distributed optimiser's step. Its first line out says what it
trains. Then each line in is a number of steps, and the line out for it has what each took, ms. All of it is JSON.
"""

import json
import pathlib
import signal
import sys
import time

import torch
from torch.distributed import autograd, rpc
from torch.distributed.optim import DistributedOptimizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "throughput_parts"))
import torch_models

ROLES = ["head", "tail"]
# `any` leaves it to PyTorch, which takes shared memory between processes of one machine.
TRANSPORTS = {"tcp": {"_transports": ["uv"], "_channels": ["mpt_uv", "basic"]}, "any": {}}
LEARNING_RATE = 0.01
PATIENCE_S = 600


class Tail:
    def __init__(self, model, split_point):
        self.stages = torch_models.Halves(model, split_point).tail.train()

    def loss(self, activation, labels):
        return torch.nn.functional.cross_entropy(self.stages(activation), labels)

    def parameters(self):
        return [rpc.RRef(parameter) for parameter in self.stages.parameters()]


class Head:
    def __init__(self, model, split_point, batch):
        halves = torch_models.Halves(model, split_point)
        _, self.samples = torch_models.models.build(model, batch, 1)
        self.labels = torch.arange(batch) % halves.output_shape[0]
        self.stages = halves.head.train()
        self.tail = rpc.remote("tail", Tail, args=(model, split_point))
        parameters = [rpc.RRef(parameter) for parameter in self.stages.parameters()]
        parameters += self.tail.rpc_sync().parameters()
        self.optimizer = DistributedOptimizer(torch.optim.SGD, parameters, lr=LEARNING_RATE)
        self.told = {
            "torch": torch.__version__, "parameters": halves.parameters, "activation_bytes": batch * halves.cut_bytes,
            "output": [batch, *halves.output_shape],
        }

    def step(self):
        with autograd.context() as context:
            loss = self.tail.rpc_sync().loss(self.stages(self.samples), self.labels)
            autograd.backward(context, [loss])
            self.optimizer.step(context)
            # As a training loop that reports its loss.
            return loss.item()


def say(value):
    print(json.dumps(value), flush=True)


def drive(head):
    say(head.told)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            head.step()
            times.append((time.perf_counter() - begin) * 1e3)
        say(times)


def main(role, port, transport, model, split_point, batch, threads):
    torch.set_num_threads(int(threads))
    options = rpc.TensorPipeRpcBackendOptions(
        init_method=f"tcp://127.0.0.1:{port}", rpc_timeout=PATIENCE_S, **TRANSPORTS[transport]
    )
    rpc.init_rpc(role, rank=ROLES.index(role), world_size=len(ROLES), rpc_backend_options=options)
    if role == "head":
        drive(Head(model, int(split_point), int(batch)))
    else:
        # RPCs are answered on other threads, until the parent ends this process.
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
