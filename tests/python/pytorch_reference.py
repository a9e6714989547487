"""Trains the same models in PyTorch and compares: pytorch_reference.py CASE_DIR...

A case is written by shared/tests/pytorch.rs from Cleave's own split training:
  case.json         model, split, loss, optimizer, schedule, clip (longest norm of the gradient),
                    codec (of what crosses the cut)
  case.safetensors  weights/<stage>.weight|bias   initial weights
                    step_inputs, step_labels      [steps, batch, ...]
                    logits, cut_gradient          of the first step, if Cleave did not cut it up
                    losses                        [steps]
                    final/<stage>.weight|bias     weights after the last step
Exits with 1 at the first value that is off.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file
from torch import nn

LOGITS, GRADIENT, LOSS, WEIGHTS = 1e-5, 1e-4, 1e-3, 1e-3


def stages(model):
    """The model's stages by name, as plain torch modules."""
    channels, height, width = model["input"]
    named = []
    for i, out in enumerate(model.get("channels", []), start=1):
        conv = nn.Conv2d(channels, out, kernel_size=3, padding=1)
        named.append((f"conv{i}", nn.Sequential(conv, nn.ReLU())))
        named.append((f"pool{i}", nn.MaxPool2d(2)))
        channels, height, width = out, height // 2, width // 2
    widths = [channels * height * width, *model["hidden"], model["classes"]]
    last = len(widths) - 1
    for i in range(1, last + 1):
        linear = nn.Linear(widths[i - 1], widths[i])
        parts = [nn.Flatten(), linear] + ([nn.ReLU()] if i != last else [])
        named.append((f"fc{i}", nn.Sequential(*parts)))
    return named


def parameters(named):
    """Names as Cleave has them, and parameters."""
    for stage, module in named:
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                yield f"{stage}.weight", part.weight
                yield f"{stage}.bias", part.bias


def build(case, tensors):
    named = stages(case["model"])
    with torch.no_grad():
        for name, parameter in parameters(named):
            parameter.copy_(tensors[f"weights/{name}"])
    return named


def make_optimizer(spec, named):
    values = [p for _, p in parameters(named)]
    shared = {"lr": spec["learning_rate"], "weight_decay": spec["weight_decay"]}
    if spec["kind"] == "sgd":
        return torch.optim.SGD(values, momentum=spec["momentum"], **shared)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec["kind"]]
    return kind(values, betas=(spec["beta1"], spec["beta2"]), eps=spec["epsilon"], **shared)


def make_schedule(spec, optimizer, steps):
    warmup = spec["warmup_steps"]
    if spec["kind"] == "constant":
        return transformers.get_constant_schedule_with_warmup(optimizer, warmup)
    if spec["kind"] == "linear":
        return transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
    return transformers.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, warmup, steps, min_lr_rate=spec["floor"]
    )


def loss_of(kind, logits, labels):
    if kind == "cross-entropy":
        return nn.functional.cross_entropy(logits, labels)
    target = nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return nn.functional.mse_loss(logits, target)


def over_the_link(values, codec):
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[codec]
    return values.detach().to(dtype).to(torch.float32)


def check(what, ours, reference, bound):
    if ours.shape != reference.shape:
        sys.exit(f"{what}: shape {tuple(ours.shape)}, PyTorch has {tuple(reference.shape)}")
    worst = (ours - reference).abs().max().item()
    if not worst <= bound:
        sys.exit(f"{what}: differs from PyTorch by {worst:.2e}, more than {bound:.0e}")
    return worst


def run(folder):
    case = json.loads((folder / "case.json").read_text())
    tensors = load_file(folder / "case.safetensors")
    named = build(case, tensors)
    optimizer = make_optimizer(case["optimizer"], named)
    schedule = make_schedule(case["schedule"], optimizer, len(tensors["step_labels"]))
    modules = [module for _, module in named]
    head, tail = nn.Sequential(*modules[: case["split"]]), nn.Sequential(*modules[case["split"] :])
    losses, worst = [], {}
    for step, (inputs, labels) in enumerate(zip(tensors["step_inputs"], tensors["step_labels"])):
        optimizer.zero_grad()
        smashed = head(inputs)
        cut = over_the_link(smashed, case["codec"]).requires_grad_()
        logits = tail(cut)
        loss = loss_of(case["loss"], logits, labels)
        loss.backward()
        if smashed.requires_grad:
            smashed.backward(over_the_link(cut.grad, case["codec"]))
        if step == 0 and "logits" in tensors:
            worst["logits"] = check("logits", tensors["logits"], logits.detach(), LOGITS)
            worst["gradient"] = check("cut-layer gradient", tensors["cut_gradient"], cut.grad, GRADIENT)
        if case["clip"] is not None:
            nn.utils.clip_grad_norm_([p for _, p in parameters(named)], case["clip"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    worst["losses"] = check("losses", tensors["losses"], torch.tensor(losses), LOSS)
    worst["weights"] = max(
        check(name, tensors[f"final/{name}"], p.detach(), WEIGHTS)
        for name, p in parameters(named)
    )
    shown = ", ".join(f"{what} {value:.1e}" for what, value in worst.items())
    print(f"{folder.name}: {len(losses)} steps, loss {losses[0]:.4f} -> {losses[-1]:.4f}; worst: {shown}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for argument in sys.argv[1:]:
        run(pathlib.Path(argument))
