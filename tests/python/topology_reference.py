"""Split learning of several kinds, written plainly in PyTorch: topology_reference.py CASE_DIR

A case is written by the test that runs Cleave's nodes:
  case.json         model, split, last_split (u-shaped), loss, optimizer, topology, rounds, local_steps,
                    samples [edges], and batches [edges][rounds * local_steps][samples of the step]: indices
  case.safetensors  weights/<stage>.weight|bias   initial weights
                    inputs [samples, ...], labels [samples]
Prints {"losses": [[round, edge, step, loss], ...], "final": {parameter: norm}} as JSON. An edge's loss in
the topology "parallel" is that of the joint batch.
"""

import copy
import json
import pathlib
import sys

import torch
from pytorch_reference import build, loss_of, parameters
from safetensors.torch import load_file
from torch import nn


class Case:
    def __init__(self, folder):
        self.spec = json.loads((folder / "case.json").read_text())
        tensors = load_file(folder / "case.safetensors")
        self.inputs, self.labels = tensors["inputs"], tensors["labels"]
        self.named = build(self.spec, tensors)
        self.samples = self.spec.get("samples", [1])
        self.edges = range(len(self.samples))
        self.rounds, self.local_steps = self.spec["rounds"], self.spec["local_steps"]

    def part(self, start, end=None):
        """Stages start..end as one module that keeps their names."""
        return nn.ModuleDict(dict(self.named[start:end]))

    def batch(self, edge, round, step):
        """The inputs and labels of a step; rounds and steps count from 1."""
        indices = self.spec["batches"][edge][(round - 1) * self.local_steps + step - 1]
        return self.inputs[indices], self.labels[indices]

    def optimizer(self, *parts):
        values = [p for part in parts for p in part.parameters()]
        spec = self.spec["optimizer"]
        if spec["kind"] == "sgd":
            return torch.optim.SGD(values, lr=spec["learning_rate"], momentum=spec["momentum"])
        betas = (spec["beta1"], spec["beta2"])
        return torch.optim.Adam(values, lr=spec["learning_rate"], betas=betas, eps=spec["epsilon"])

    def loss(self, logits, labels):
        return loss_of(self.spec["loss"], logits, labels)


def forward(part, x):
    for stage in part.values():
        x = stage(x)
    return x


def fed_avg(parts, samples):
    """The mean of equal modules' parameters, weighted by samples (McMahan et al. 2017)."""
    mean = copy.deepcopy(parts[0])
    states = [part.state_dict() for part in parts]
    total = sum(samples)
    mean.load_state_dict(
        {
            name: sum(s[name].double() * (n / total) for s, n in zip(states, samples)).float()
            for name in states[0]
        }
    )
    return mean


def split_step(case, head, tail, head_optimizer, tail_optimizer, inputs, labels):
    """One step of plain split learning; both halves learn."""
    cut = forward(head, inputs)
    at_cloud = cut.detach().requires_grad_()
    loss = case.loss(forward(tail, at_cloud), labels)
    tail_optimizer.zero_grad()
    loss.backward()
    tail_optimizer.step()
    head_optimizer.zero_grad()
    cut.backward(at_cloud.grad)
    head_optimizer.step()
    return loss.item()


def u_shaped(case):
    """Head and last layers at the edge, the body in the cloud; labels never leave the edge."""
    first, last = case.spec["split"], case.spec["last_split"]
    head, body, end = case.part(0, first), case.part(first, last), case.part(last)
    optimizers = [case.optimizer(part) for part in (head, body, end)]
    for round in range(1, case.rounds + 1):
        for step in range(1, case.local_steps + 1):
            inputs, labels = case.batch(0, round, step)
            first_cut = forward(head, inputs)
            to_cloud = first_cut.detach().requires_grad_()
            second_cut = forward(body, to_cloud)
            to_edge = second_cut.detach().requires_grad_()
            loss = case.loss(forward(end, to_edge), labels)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            second_cut.backward(to_edge.grad)
            first_cut.backward(to_cloud.grad)
            for optimizer in optimizers:
                optimizer.step()
            yield round, 0, step, loss.item()
    return head, body, end


def sequential(case):
    """Gupta & Raskar 2018: edge after edge; the head travels with its optimiser's state."""
    head, tail = case.part(0, case.spec["split"]), case.part(case.spec["split"])
    optimizers = case.optimizer(head), case.optimizer(tail)
    for round in range(1, case.rounds + 1):
        for edge in case.edges:
            for step in range(1, case.local_steps + 1):
                loss = split_step(case, head, tail, *optimizers, *case.batch(edge, round, step))
                yield round, edge, step, loss
    return head, tail


def splitfed_v1(case):
    """Thapa et al. 2022: a tail for each edge; heads and tails are averaged at the end of a round.

    Optimisers start anew in each round, as in FedAvg.
    """
    head, tail = case.part(0, case.spec["split"]), case.part(case.spec["split"])
    for round in range(1, case.rounds + 1):
        heads, tails = [], []
        for edge in case.edges:
            own_head, own_tail = copy.deepcopy(head), copy.deepcopy(tail)
            optimizers = case.optimizer(own_head), case.optimizer(own_tail)
            for step in range(1, case.local_steps + 1):
                batch = case.batch(edge, round, step)
                yield round, edge, step, split_step(case, own_head, own_tail, *optimizers, *batch)
            heads.append(own_head)
            tails.append(own_tail)
        head, tail = fed_avg(heads, case.samples), fed_avg(tails, case.samples)
    return head, tail


def splitfed_v2(case):
    """Thapa et al. 2022: one tail takes the edges' batches of each step one after the other, in the order
    of their numbers; heads are averaged at the end of a round, and their optimisers start anew.
    """
    head, tail = case.part(0, case.spec["split"]), case.part(case.spec["split"])
    tail_optimizer = case.optimizer(tail)
    for round in range(1, case.rounds + 1):
        heads = [copy.deepcopy(head) for _ in case.edges]
        head_optimizers = [case.optimizer(own) for own in heads]
        for step in range(1, case.local_steps + 1):
            for edge in case.edges:
                optimizers = head_optimizers[edge], tail_optimizer
                batch = case.batch(edge, round, step)
                yield round, edge, step, split_step(case, heads[edge], tail, *optimizers, *batch)
        head = fed_avg(heads, case.samples)
    return head, tail


def parallel(case):
    """Jeon & Kim 2020: the activations of all edges are one batch for one tail; every head applies the sum
    of the gradients of all heads, so that heads stay equal.
    """
    head, tail = case.part(0, case.spec["split"]), case.part(case.spec["split"])
    heads = [copy.deepcopy(head) for _ in case.edges]
    head_optimizers = [case.optimizer(own) for own in heads]
    tail_optimizer = case.optimizer(tail)
    for round in range(1, case.rounds + 1):
        for step in range(1, case.local_steps + 1):
            batches = [case.batch(edge, round, step) for edge in case.edges]
            cuts = [forward(own, inputs) for own, (inputs, _) in zip(heads, batches)]
            joint = torch.cat([cut.detach() for cut in cuts]).requires_grad_()
            loss = case.loss(forward(tail, joint), torch.cat([labels for _, labels in batches]))
            tail_optimizer.zero_grad()
            loss.backward()
            tail_optimizer.step()
            slices = joint.grad.split([len(cut) for cut in cuts])
            for optimizer, cut, gradient in zip(head_optimizers, cuts, slices):
                optimizer.zero_grad()
                cut.backward(gradient)
            for same in zip(*(own.parameters() for own in heads)):
                total = sum(parameter.grad for parameter in same)
                for parameter in same:
                    parameter.grad = total.clone()
            for optimizer in head_optimizers:
                optimizer.step()
            for edge in case.edges:
                yield round, edge, step, loss.item()
    return heads[0], tail


TOPOLOGIES = {
    "u-shaped": u_shaped,
    "sequential": sequential,
    "splitfed-v1": splitfed_v1,
    "splitfed-v2": splitfed_v2,
    "parallel": parallel,
}


def run(folder):
    case = Case(folder)
    steps, losses = TOPOLOGIES[case.spec["topology"]](case), []
    while True:
        try:
            losses.append(next(steps))
        except StopIteration as end:
            named = [(name, stage) for part in end.value for name, stage in part.items()]
            final = {name: p.detach().norm().item() for name, p in parameters(named)}
            print(json.dumps({"losses": losses, "final": final}))
            return


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run(pathlib.Path(sys.argv[1]))
