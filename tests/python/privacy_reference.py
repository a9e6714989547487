"""Compares privacy measures with Opacus and PyTorch: privacy_reference.py CASE_DIR

shared/tests/privacy.rs writes the case from Cleave's own computation:
  case.json         clip, accounts: noise, rate, steps, delta, epsilon
  case.safetensors  input/x, smashed/<name>                 of a batch
                    clipped/<name>                          smashed with each sample's norm at most clip
                    upstream/<name>, clip_gradient/<name>   a gradient at clipped, and at smashed
                    penalty [1], penalty_gradient/<name>    distance correlation, its gradient at smashed
Exits with 1 at the first value that is off.
"""

import json
import pathlib
import sys
import warnings

import torch
from safetensors.torch import load_file

EPSILON, TENSOR = 1e-6, 1e-4
ORDERS = [1.01, 1.02, 1.05] + [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
ORDERS += [80, 96, 128, 192, 256, 384, 512, 1024]


def accountants(accounts):
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

    warnings.filterwarnings("ignore", message=".*Optimal order.*")
    worst, of_one_step = 0.0, {}
    for row in accounts:
        noise, rate = row["noise"], row["rate"]
        if (noise, rate) not in of_one_step:
            of_one_step[noise, rate] = compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=ORDERS)
        rdp = of_one_step[noise, rate] * row["steps"]
        reference = max(get_privacy_spent(orders=ORDERS, rdp=rdp, delta=row["delta"])[0], 0.0)
        error = abs(row["epsilon"] - reference) / max(reference, 1e-9)
        if not error <= EPSILON:
            sys.exit(f"epsilon of {row}: Opacus says {reference}")
        worst = max(worst, error)
    print(f"accountant: {len(accounts)} settings agree with Opacus, worst relative difference {worst:.1e}")


def check(name, ours, reference):
    worst = ((ours.double() - reference).norm() / reference.norm()).item()
    if not worst <= TENSOR:
        sys.exit(f"{name}: differs from PyTorch by {worst:.2e} of its norm, more than {TENSOR:.0e}")
    return worst


def part(tensors, prefix):
    return {n.removeprefix(prefix + "/"): t for n, t in tensors.items() if n.startswith(prefix + "/")}


def leaves(tensors):
    return {name: t.double().requires_grad_() for name, t in part(tensors, "smashed").items()}


def rows(tensors):
    return torch.cat([t.flatten(1) for t in tensors.values()], 1)


def clipping(tensors, clip):
    smashed = leaves(tensors)
    norm = rows(smashed).norm(dim=1)
    if not (norm > clip).any() or not (norm < clip).any():
        sys.exit("the case has no samples on both sides of the clip")
    factor = (clip / norm).clamp(max=1)
    clipped = {n: t * factor.view(-1, *[1] * (t.dim() - 1)) for n, t in smashed.items()}
    sum((clipped[n] * t.double()).sum() for n, t in part(tensors, "upstream").items()).backward()
    worst = 0.0
    for name, leaf in smashed.items():
        worst = max(worst, check(f"clipped/{name}", tensors[f"clipped/{name}"], clipped[name].detach()))
        worst = max(worst, check(f"clip_gradient/{name}", tensors[f"clip_gradient/{name}"], leaf.grad))
    print(f"clipping: value and gradient agree with PyTorch, worst {worst:.1e}")


def centred(x):
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()


def distance_correlation(x, y):
    a, b = centred(x), centred(y)
    covariance, variances = (a * b).mean(), (a * a).mean() * (b * b).mean()
    return (covariance / variances.sqrt()).sqrt()


def penalty(tensors):
    smashed = leaves(tensors)
    value = distance_correlation(rows(part(tensors, "input")).double(), rows(smashed))
    value.backward()
    worst = check("penalty", tensors["penalty"], value.detach().view(1))
    for name, leaf in smashed.items():
        worst = max(worst, check(f"penalty_gradient/{name}", tensors[f"penalty_gradient/{name}"], leaf.grad))
    print(f"distance correlation {value.item():.4f}: value and gradient agree with PyTorch, worst {worst:.1e}")


def main(folder):
    case = json.loads((folder / "case.json").read_text())
    tensors = load_file(folder / "case.safetensors")
    if case["accounts"]:
        accountants(case["accounts"])
    clipping(tensors, case["clip"])
    penalty(tensors)


main(pathlib.Path(sys.argv[1]))
