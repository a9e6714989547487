"""Writes a full-size model with random weights, an input and PyTorch's answer: reference.py MODEL FOLDER

  model.safetensors  the weights, by the names of the model's ecosystem
  input.npz          the model's inputs by name
  output.npy         PyTorch's output
"""

import pathlib
import sys

import numpy
import torch
import torchvision
import transformers
from safetensors.torch import save_file

SEQUENCE = 32
TOKENS = 1000


def cnn(make):
    model = make(weights=None)
    # Fresh running statistics are 0 and 1, which would hide a wrong BatchNorm.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model, {"input": torch.rand(1, 3, 224, 224)}


def tokens(model):
    return model, {"input_ids": torch.randint(0, TOKENS, (1, SEQUENCE))}


def bert():
    config = transformers.BertConfig(num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model, inputs = tokens(transformers.BertForSequenceClassification(config))
    inputs["attention_mask"] = torch.ones(1, SEQUENCE, dtype=torch.int64)
    inputs["attention_mask"][0, SEQUENCE // 2 :] = 0
    return model, inputs


def llama():
    """The shape of Llama 3.2 1B."""
    config = transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tie_word_embeddings=True,
    )
    return tokens(transformers.LlamaForCausalLM(config))


MODELS = {
    "alexnet": lambda: cnn(torchvision.models.alexnet),
    "vgg16": lambda: cnn(torchvision.models.vgg16),
    "resnet18": lambda: cnn(torchvision.models.resnet18),
    "resnet50": lambda: cnn(torchvision.models.resnet50),
    "mobilenetv2": lambda: cnn(torchvision.models.mobilenet_v2),
    "bert": bert,
    "gpt2": lambda: tokens(transformers.GPT2LMHeadModel(transformers.GPT2Config())),
    "llama": llama,
}


def main(name, folder):
    torch.manual_seed(1)
    folder = pathlib.Path(folder)
    model, inputs = MODELS[name]()
    model.eval()
    if isinstance(model, transformers.PreTrainedModel):
        model.save_pretrained(folder, max_shard_size="2GB")
    else:
        save_file(model.state_dict(), folder / "model.safetensors")
    with torch.no_grad():
        output = model(**inputs) if "input_ids" in inputs else model(inputs["input"])
    output = getattr(output, "logits", output)
    numpy.savez(folder / "input.npz", **{key: value.numpy() for key, value in inputs.items()})
    numpy.save(folder / "output.npy", output.numpy())
    print(sum(p.numel() for p in model.parameters()))


main(*sys.argv[1:])
