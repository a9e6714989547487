"""Runs and trains torchvision's CNNs: torchvision_reference.py FOLDER

FOLDER/case.json, written by shared/tests/zoo/cnn.rs:
  model       the spec as Cleave's configuration has it
  batch, steps, optimizers {name: spec}     of the training; without them there is none
What it leaves there:
  model.safetensors      the state dict of torchvision's own class, random weights and running statistics
  expected.safetensors   input, logits                         in eval mode
                         step_inputs, step_labels              [steps, batch, ...]
                         <optimizer>/losses                    [steps], in train mode
                         <optimizer>/logits                    in eval mode, after the training
                         <optimizer>/final/<name>              state dict after the training
  facts.json             flops of one sample
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.alexnet import AlexNet
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers


class SizedResNet(ResNet):
    """torchvision's ResNet, whose width and number of layers are fixed, with others."""

    def __init__(self, block, layers, width, classes):
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation = nn.BatchNorm2d, width, 1
        self.groups, self.base_width = 1, 64
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        for i in range(4):
            stride, width_of_layer = (1 if i == 0 else 2), width << i
            layer = self._make_layer(block, width_of_layer, layers[i], stride=stride)
            setattr(self, f"layer{i + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear((width << 3) * block.expansion, classes)


def alexnet(spec):
    """torchvision's AlexNet, whose sizes are fixed, with others: layers of the same kinds are swapped."""
    with torch.device("meta"):
        model = AlexNet(spec["classes"], dropout=0.0)
    channels = [3, *spec["channels"]]
    convolutions = [m for m in model.features if isinstance(m, nn.Conv2d)]
    for i, conv in enumerate(convolutions):
        index = list(model.features).index(conv)
        sized = nn.Conv2d(channels[i], channels[i + 1], conv.kernel_size, conv.stride, conv.padding)
        model.features[index] = sized
    resize_classifier(model, channels[-1] * 6 * 6, spec)
    return model


def resize_classifier(model, features, spec):
    widths = [features, *spec["hidden"], spec["classes"]]
    indices = [i for i, m in enumerate(model.classifier) if isinstance(m, nn.Linear)]
    for i, index in enumerate(indices):
        model.classifier[index] = nn.Linear(widths[i], widths[i + 1])


def vgg(spec):
    layers = []
    for group in spec["channels"]:
        layers += [*group, "M"]
    with torch.device("meta"):
        model = VGG(nn.Sequential(), spec["classes"], init_weights=False, dropout=0.0)
    model.features = make_layers(layers)
    resize_classifier(model, spec["channels"][-1][-1] * 7 * 7, spec)
    return model


def resnet(spec):
    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[spec["block"]]
    if spec["width"] == 64:
        return ResNet(block, spec["layers"], spec["classes"])
    return SizedResNet(block, spec["layers"], spec["width"], spec["classes"])


def mobilenetv2(spec):
    return MobileNetV2(spec["classes"], spec["width"], spec["blocks"], dropout=0.0)


BUILDERS = {"alexnet": alexnet, "vgg": vgg, "resnet": resnet, "mobilenetv2": mobilenetv2}


def build(spec):
    torch.manual_seed(5)
    model = BUILDERS[spec["family"]](spec)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # As after a training: nothing is 0 or 1 any more.
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.1)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def make_optimizer(spec, model):
    if spec["kind"] == "sgd":
        return torch.optim.SGD(model.parameters(), spec["learning_rate"], momentum=spec["momentum"])
    betas = (spec["beta1"], spec["beta2"])
    return torch.optim.Adam(model.parameters(), spec["learning_rate"], betas=betas, eps=spec["epsilon"])


def train(spec, optimizer_spec, weights, expected):
    model = build(spec)
    model.load_state_dict(weights)
    optimizer = make_optimizer(optimizer_spec, model)
    losses = []
    model.train()
    for inputs, labels in zip(expected["step_inputs"], expected["step_labels"]):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        logits = model.eval()(expected["input"])
    return torch.tensor(losses), logits, model.state_dict()


def main(folder):
    case = json.loads((folder / "case.json").read_text())
    spec, batch, steps = case["model"], case["batch"], case.get("steps", 0)
    model = build(spec)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")

    expected = {"input": torch.randn(batch, *spec["input"])}
    with torch.no_grad():
        expected["logits"] = model(expected["input"])
        with FlopCounterMode(display=False) as counter:
            model(expected["input"][:1])
    if steps:
        expected["step_inputs"] = torch.randn(steps, batch, *spec["input"])
        expected["step_labels"] = torch.randint(spec["classes"], (steps, batch))
    for name, optimizer_spec in case.get("optimizers", {}).items():
        losses, logits, final = train(spec, optimizer_spec, weights, expected)
        expected[f"{name}/losses"], expected[f"{name}/logits"] = losses, logits
        for parameter, value in final.items():
            if value.is_floating_point():
                expected[f"{name}/final/{parameter}"] = value.clone()
    expected = {name: value.contiguous() for name, value in expected.items()}
    save_file(expected, folder / "expected.safetensors")
    (folder / "facts.json").write_text(json.dumps({"flops": counter.get_total_flops()}))


torch.set_num_threads(1)
if len(sys.argv) != 2:
    sys.exit(__doc__)
main(pathlib.Path(sys.argv[1]))
