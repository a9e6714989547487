"""PyTorch's recurrent networks and linear regression: rnn_reference.py FOLDER

FOLDER/case.json, written by shared/tests/zoo/{rnn,linear_regression}.rs:
  model, loss, optimizer, batch, steps, length     as Cleave has them; length of the sequences
or {"losses": true}: only the losses, over logits of rank 3
What it leaves there:
  model.safetensors      the module's state dict
  expected.safetensors   input, [length], label     [steps, batch, ...]
                         output                     of the first step's batch, before the training
                         losses                     [steps]
                         final/<name>               parameters after the last step
                         [prompt, generated]        [1, n]: greedy, by the weights before the training
  facts.json             flops of one sample
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

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


def classify(model, shape):
    """Sequences, and what the last position of each says, so that there is something to learn."""
    steps, batch, longest = shape
    tokens = model.get("vocabulary")
    x = torch.randint(tokens, shape) if tokens else torch.randn(*shape, model["features"])
    length = torch.randint(1, longest + 1, (steps, batch))
    length[0, 0] = longest
    last = x[torch.arange(steps)[:, None], torch.arange(batch), length - 1]
    label = last % model["classes"] if tokens else last[..., : model["classes"]].argmax(-1)
    return {"input": x, "length": length, "label": label}


def language_model(model, shape):
    """Each token follows from the one before, in one of a few orders; some samples are shorter."""
    steps, batch, longest = shape
    text = [torch.randint(model["vocabulary"], (steps, batch))]
    stride = torch.randint(1, 4, (steps, batch))
    for _ in range(longest):
        text.append((text[-1] + stride) % model["vocabulary"])
    text = torch.stack(text, -1)
    label = text[..., 1:].clone()
    label[:, 1, longest - 4 :] = -100
    return {"input": text[..., :-1], "label": label}


def regression(model, shape):
    """Features of different magnitudes, far from 0."""
    steps, batch, _ = shape
    features, outputs = model["features"], model["outputs"]
    mean, std = torch.tensor(model["mean"]), torch.tensor(model["std"])
    x = torch.randn(steps, batch, features) * std + mean
    noise = 0.1 * torch.randn(steps, batch, outputs)
    return {"input": x, "label": x @ torch.randn(features, outputs) + 0.5 + noise}


def flops(module, data):
    """Products of one sample; PyTorch counts them where the layers are not oneDNN's."""
    sample = [data["input"][0, :1]]
    if "length" in data:
        sample.append(torch.tensor([data["input"].shape[2]]))
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        with FlopCounterMode(display=False) as counter:
            module(*sample)
    return counter.get_total_flops()


def losses():
    """Values and gradients of the losses over rank 3, some of whose labels do not count."""
    data = {"logits": torch.randn(3, 5, 7), "target": torch.randn(3, 5, 7)}
    data["label"] = torch.randint(7, (3, 5))
    data["label"][0, 3:] = -100
    data["label"][2, 0] = -100
    for kind, label in [("cross-entropy", "label"), ("mse", "target")]:
        logits = data["logits"].clone().requires_grad_()
        loss = loss_of(kind, logits, data[label])
        loss.backward()
        data |= {kind: loss.detach().reshape(1), f"{kind}-gradient": logits.grad}
    data["correct"] = (data["logits"].argmax(-1) == data["label"]).sum().reshape(1)
    return data, {}


def modelled(folder, case):
    model, shape = case["model"], (case["steps"], case["batch"], case["length"])
    if model["family"] == "linear-regression":
        module, data = Regression(model), regression(model, shape)
    else:
        module = Rnn(model)
        data = (classify if model["task"] == "classify" else language_model)(model, shape)
    save_file(module.state_dict(), folder / "model.safetensors")
    facts = {"flops": flops(module, data)}
    if "decoder.weight" in module.state_dict():
        data["prompt"] = torch.randint(model["vocabulary"], (1, 5))
        data["generated"] = greedy(module, data["prompt"], 64)
    data["output"], data["losses"] = train(module, case, data)
    return data | {f"final/{name}": p.detach() for name, p in module.named_parameters()}, facts


def main(folder):
    case = json.loads((folder / "case.json").read_text())
    data, facts = losses() if "losses" in case else modelled(folder, case)
    save_file({name: t.contiguous() for name, t in data.items()}, folder / "expected.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts))


torch.set_num_threads(1)
torch.manual_seed(4)
if len(sys.argv) != 2:
    sys.exit(__doc__)
main(pathlib.Path(sys.argv[1]))
