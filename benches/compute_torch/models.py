"""The models of benches/compute in PyTorch, with random weights, and one pass of each."""

import torch
import torchvision
import transformers
from torch import nn


class Logits(nn.Module):
    """A Hugging Face model of token ids that gives its logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids, use_cache=False).logits


def lenet():
    """As `edge-node inspect --model lenet` has it."""
    conv = lambda inputs, outputs: [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *conv(1, 32), *conv(32, 64), nn.Flatten(), nn.Linear(64 * 2 * 2, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def build(name, batch, length):
    """The model, and an input of random values."""
    if name == "lenet":
        return lenet(), torch.rand(batch, 1, 8, 8)
    if name in ("resnet18", "resnet50", "mobilenetv2"):
        maker = {"mobilenetv2": torchvision.models.mobilenet_v2}.get(name) or getattr(torchvision.models, name)
        return maker(), torch.rand(batch, 3, 224, 224)
    if name == "bert":
        config = transformers.BertConfig(num_labels=2)
        return Logits(transformers.BertForSequenceClassification(config)), torch.ones(batch, length, dtype=torch.long)
    config = transformers.GPT2Config()
    return Logits(transformers.GPT2LMHeadModel(config)), torch.ones(batch, length, dtype=torch.long)


def forward(model, inputs, compiled):
    """One pass of inference, to call."""
    model = model.eval()
    run = torch.compile(model) if compiled else model

    def once():
        with torch.inference_mode():
            return run(inputs)

    return once


def step(model, inputs, compiled):
    """One step of SGD, to call."""
    model = model.train()
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with torch.no_grad():
        classes = model(inputs).shape[1]
    labels = torch.arange(len(inputs)) % classes

    def once():
        optimizer.zero_grad()
        outputs = run(inputs)
        loss = nn.functional.cross_entropy(outputs, labels)
        loss.backward()
        optimizer.step()
        # As a training loop that reports its loss.
        loss.item()
        return outputs

    return once
