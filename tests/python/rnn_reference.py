"""PyTorch's numbers for the recurrent models and the linear regression: rnn_reference.py OUT_DIR

Writes a folder for each case, which shared/tests/zoo/rnn.rs and linear_regression.rs repeat:
  case.json           Cleave's spec of the model, loss, optimizer
  model.safetensors   the module's state_dict before training
  data.safetensors    input, [length], label        [steps, batch, ...] for each step
                      output                        of the first step's batch, before training
                      losses                        [steps]
                      final/<name>                  the parameters after the last step
                      [prompt, generated]           [1, n]: greedy, from the weights before training
and losses/data.safetensors with the losses themselves over logits of rank 3.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

STEPS, BATCH, LONGEST = 20, 6, 12
SGD = {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9}
ADAM = {"kind": "adam", "learning_rate": 0.02, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


class Rnn(nn.Module):
    """What a PyTorch user writes for either task."""

    def __init__(self, spec):
        super().__init__()
        tokens = spec.get("vocabulary")
        if tokens:
            self.embedding = nn.Embedding(tokens, spec["embedding"])
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[spec["cell"]]
        width = spec["embedding"] if tokens else spec["features"]
        self.rnn = kind(width, spec["hidden"], spec["layers"], batch_first=True)
        if spec["task"] == "classify":
            self.fc = nn.Linear(spec["hidden"], spec["classes"])
        else:
            self.decoder = nn.Linear(spec["hidden"], tokens)
            # Larger than PyTorch's, so that greedy generation does not end in one token for ever.
            for parameter in self.rnn.parameters():
                nn.init.normal_(parameter, std=1.0)

    def forward(self, x, length=None):
        if hasattr(self, "embedding"):
            x = self.embedding(x)
        if hasattr(self, "decoder"):
            return self.decoder(self.rnn(x)[0])
        packed = pack_padded_sequence(x, length, batch_first=True, enforce_sorted=False)
        _, state = self.rnn(packed)
        h_n = state[0] if isinstance(state, tuple) else state
        return self.fc(h_n[-1])


class Regression(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.mean, self.std = torch.tensor(spec["mean"]), torch.tensor(spec["std"])
        self.linear = nn.Linear(spec["features"], spec["outputs"])

    def forward(self, x):
        return self.linear((x - self.mean) / self.std)


def loss_of(kind, output, label):
    if kind == "mse":
        return nn.functional.mse_loss(output, label)
    return nn.functional.cross_entropy(output.flatten(0, -2), label.flatten())


def train(module, case, data):
    """The first outputs, and the loss of each step; trains `module`."""
    spec = case["optimizer"]
    if spec["kind"] == "sgd":
        optimizer = torch.optim.SGD(module.parameters(), lr=spec["learning_rate"], momentum=spec["momentum"])
    else:
        betas = (spec["beta1"], spec["beta2"])
        optimizer = torch.optim.Adam(module.parameters(), lr=spec["learning_rate"], betas=betas, eps=spec["epsilon"])
    first, losses = None, []
    for step in range(len(data["input"])):
        extra = [data["length"][step]] if "length" in data else []
        output = module(data["input"][step], *extra)
        first = output.detach() if first is None else first
        loss = loss_of(case["loss"], output, data["label"][step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return first, torch.tensor(losses)


@torch.no_grad()
def greedy(module, prompt, count):
    """The `count` tokens behind the prompt, each from the whole sequence before it."""
    ids = prompt
    for _ in range(count):
        ids = torch.cat([ids, module(ids)[:, -1:].argmax(-1)], 1)
    return ids[:, prompt.shape[1] :]


def write(folder, case, module, data):
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps(case))
    save_file(module.state_dict(), folder / "model.safetensors")
    if case["model"].get("task") == "language-model":
        data["prompt"] = torch.randint(case["model"]["vocabulary"], (1, 5))
        data["generated"] = greedy(module, data["prompt"], 64)
    data["output"], data["losses"] = train(module, case, data)
    data |= {f"final/{name}": p.detach() for name, p in module.named_parameters()}
    save_file({name: t.contiguous() for name, t in data.items()}, folder / "data.safetensors")


def classify(out, cell, layers, tokens):
    model = {"family": "rnn", "cell": cell, "task": "classify"}
    model |= {"vocabulary": 40, "embedding": 16} if tokens else {"features": 9}
    model |= {"hidden": 24, "layers": layers, "classes": 4, "longest": LONGEST}
    shape = (STEPS, BATCH, LONGEST)
    x = torch.randint(40, shape) if tokens else torch.randn(*shape, 9)
    length = torch.randint(1, LONGEST + 1, shape[:2])
    # What the last position of each sample says, so that there is something to learn.
    steps, rows = torch.arange(STEPS)[:, None], torch.arange(BATCH)
    last = x[steps, rows, length - 1]
    label = last % 4 if tokens else last[..., :4].argmax(-1)
    data = {"input": x, "length": length, "label": label}
    case = {"model": model, "loss": "cross-entropy", "optimizer": SGD if layers == 1 else ADAM}
    write(out / f"classify-{cell}-{layers}-{'tokens' if tokens else 'features'}", case, Rnn(model), data)


def language_model(out, cell, layers):
    model = {"family": "rnn", "cell": cell, "task": "language-model", "vocabulary": 30, "embedding": 12}
    model |= {"hidden": 20, "layers": layers, "longest": LONGEST}
    # Each token follows from the one before, in a few orders.
    text = [torch.randint(30, (STEPS, BATCH))]
    stride = torch.randint(1, 4, (STEPS, BATCH))
    for _ in range(LONGEST):
        text.append((text[-1] + stride) % 30)
    text = torch.stack(text, -1)
    label = text[..., 1:].clone()
    label[:, 1, LONGEST - 4 :] = -100  # a sample that is shorter
    data = {"input": text[..., :-1].clone(), "label": label}
    case = {"model": model, "loss": "cross-entropy", "optimizer": ADAM if layers == 1 else SGD}
    write(out / f"language-model-{cell}-{layers}", case, Rnn(model), data)


def regression(out, outputs):
    features, steps = 3, 25
    scale = torch.tensor([1.0, 10.0, 0.1])
    x = torch.randn(steps, 16, features) * scale + 5 * scale
    y = x @ torch.randn(features, outputs) + 0.5 + 0.1 * torch.randn(steps, 16, outputs)
    rows = x.flatten(0, 1)
    model = {"family": "linear-regression", "features": features, "outputs": outputs}
    model |= {"mean": rows.mean(0).tolist(), "std": rows.std(0).tolist()}
    optimizer = {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.0}
    case = {"model": model, "loss": "mse", "optimizer": optimizer}
    write(out / f"regression-{outputs}", case, Regression(model), {"input": x, "label": y})


def losses(out):
    """Values and gradients of the losses over rank 3 and rank 2."""
    data = {"logits": torch.randn(3, 5, 7), "target": torch.randn(3, 5, 7)}
    data["label"] = torch.randint(7, (3, 5))
    data["label"][0, 3:] = -100
    data["label"][2, 0] = -100
    for kind, label in [("cross-entropy", "label"), ("mse", "target")]:
        logits = data["logits"].clone().requires_grad_()
        loss = loss_of(kind, logits, data[label])
        loss.backward()
        data |= {kind: loss.detach().reshape(1), f"{kind}-gradient": logits.grad}
    right = data["logits"].argmax(-1) == data["label"]
    data["correct"] = right.sum().reshape(1)
    (out / "losses").mkdir(parents=True)
    save_file(data, out / "losses" / "data.safetensors")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(4)
    for cell in ["lstm", "gru"]:
        for layers in [1, 3]:
            classify(out, cell, layers, tokens=True)
            language_model(out, cell, layers)
        classify(out, cell, 2, tokens=False)
    for outputs in [1, 2]:
        regression(out, outputs)
    losses(out)


main()
