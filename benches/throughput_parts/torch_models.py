"""The models of benches/compute, cut where Cleave cuts them, and their tensors as bytes."""

import pathlib
import sys
import warnings

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "compute_torch"))
import models

SEED = 7
# Tensors are made over a request's bytes without a copy, and only read.
warnings.filterwarnings("ignore", "The given buffer is not writable")


def lenet(model):
    """Convolution and pooling in turns, then dense layers."""
    return [model[0:2], model[2:3], model[3:5], model[5:6], model[6:9], model[9:10]]


def mobilenetv2(model):
    return [*model.features, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier)]


def resnet18(model):
    blocks = [block for layer in (model.layer1, model.layer2, model.layer3, model.layer4) for block in layer]
    stem = nn.Sequential(model.conv1, model.bn1, model.relu)
    return [stem, model.maxpool, *blocks, nn.Sequential(model.avgpool, nn.Flatten(), model.fc)]


STAGES = {"lenet": lenet, "mobilenetv2": mobilenetv2, "resnet18": resnet18}


class Halves:
    """A model with random weights, the same in each process, on both sides of its cut."""

    def __init__(self, name, split_point):
        if name not in STAGES:
            sys.exit(f"{name}: PyTorch's models here are {', '.join(STAGES)}")
        torch.manual_seed(SEED)
        model, sample = models.build(name, 1, 1)
        stages = STAGES[name](model)
        self.head = nn.Sequential(*stages[:split_point]).eval()
        self.tail = nn.Sequential(*stages[split_point:]).eval()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        with torch.inference_mode():
            activation = self.head(sample)
            output = self.tail(activation)
        # Of one sample each, without the batch.
        self.input_shape, self.cut_shape, self.output_shape = (list(t.shape[1:]) for t in (sample, activation, output))
        self.cut_bytes = activation.numel() * activation.element_size()


def of_bytes(data, shape):
    """A batch of samples of this shape."""
    return torch.frombuffer(data, dtype=torch.float32).reshape(-1, *shape)


def bytes_of(batch):
    return batch.numpy().tobytes()
