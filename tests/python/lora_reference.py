"""Trains LoRA adapters of an MLP in PyTorch and compares: lora_reference.py CASE_DIR

shared/tests/optimisation.rs writes the case from Cleave's own split training:
  case.json         lora (rank, alpha), learning_rate of Adam
  case.safetensors  weights/fc<i>.weight|bias                 the frozen model
                    first/fc<i>.lora_A|lora_B.weight          adapters before the first step
                    inputs [steps, batch, in], labels [steps, batch]
                    split<k>/losses [steps]                   of the model split at k
                    split<k>/fc<i>.lora_A|lora_B.weight       adapters after the last step
Exits with 1 at the first value that is off.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from torch import nn

LOSS, FACTORS = 1e-3, 1e-3


class LoraLinear(nn.Module):
    """x W^T + b + alpha/r x A^T B^T, with A and B trained (Hu et al. 2022)."""

    def __init__(self, weight, bias, a, b, scale):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.a = nn.Parameter(a.clone())
        self.b = nn.Parameter(b.clone())
        self.scale = scale

    def forward(self, x):
        base = nn.functional.linear(x, self.weight, self.bias)
        return base + (x @ self.a.T @ self.b.T) * self.scale


def check(what, ours, reference, bound):
    worst = (ours - reference).abs().max().item()
    if not worst <= bound:
        sys.exit(f"{what}: differs from PyTorch by {worst:.2e}, more than {bound:.0e}")
    return worst


def train(case, tensors, layers):
    scale = case["lora"]["alpha"] / case["lora"]["rank"]
    linears = []
    for name in layers:
        parts = [tensors[f"weights/{name}.{part}"] for part in ("weight", "bias")]
        a, b = (tensors[f"first/{name}.lora_{f}.weight"] for f in "AB")
        bound = 1 / a.shape[1] ** 0.5
        if b.any() or not 0.5 * bound < a.abs().max() <= bound:
            sys.exit(f"{name}: A is not uniform in ±1/√in, or B is not zero")
        linears.append(LoraLinear(*parts, a, b, scale))
    parts = [part for linear in linears for part in (linear, nn.ReLU())][:-1]
    model = nn.Sequential(*parts)
    optimizer = torch.optim.Adam(model.parameters(), lr=case["learning_rate"])
    losses = []
    for inputs, labels in zip(tensors["inputs"], tensors["labels"]):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return linears, losses


def main(folder):
    case = json.loads((folder / "case.json").read_text())
    tensors = load_file(folder / "case.safetensors")
    layers = sorted(n.split("/")[1][: -len(".weight")] for n in tensors if n.startswith("weights/") and n.endswith(".weight"))
    linears, losses = train(case, tensors, layers)
    reference = torch.tensor(losses)
    for split in range(len(layers) + 1):
        worst = check(f"losses at split {split}", tensors[f"split{split}/losses"], reference, LOSS)
        factors = max(
            check(f"{name}.{f} at split {split}", tensors[f"split{split}/{name}.lora_{f.upper()}.weight"], getattr(linear, f).detach(), FACTORS)
            for name, linear in zip(layers, linears)
            for f in "ab"
        )
        print(f"split {split}: loss {losses[0]:.4f} -> {losses[-1]:.4f}; worst: losses {worst:.1e}, factors {factors:.1e}")


torch.set_num_threads(1)
if len(sys.argv) != 2:
    sys.exit(__doc__)
main(pathlib.Path(sys.argv[1]))
