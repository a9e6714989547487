"""Trains LoRA adapters with Hugging Face's PEFT: peft_reference.py FOLDER CLASS

FOLDER is one that lm_reference.py or bert_reference.py left: the base model as transformers saved it,
and in expected.safetensors the batches. shared/tests/zoo/lora.rs has added to it
  adapter.json        optimizer, and the names of the model's inputs in expected.safetensors
  <case>/first/       an adapter that Cleave wrote, before the first step
  <case>/trained/     the same after Cleave's training
and finds afterwards
  <case>/result.safetensors   losses [steps]
                              final/<name>    the factors after PEFT's training
                              first, trained  the logits with the adapters that Cleave wrote
CLASS is transformers' class of the model.
"""

import json
import pathlib
import sys

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lm_reference import IGNORED, optimizer_of

PREFIX = "base_model.model."


def adapted(folder, model_class, adapter, trainable=False):
    base = getattr(transformers, model_class).from_pretrained(folder, attn_implementation="eager")
    return PeftModel.from_pretrained(base, adapter, is_trainable=trainable).eval()


def batch(tensors, inputs, step):
    """The inputs of one step; without a step those of the logits."""
    if step is None:
        return {name: tensors[stored] for name, stored in inputs["logits"].items()}
    return {name: tensors[stored][step] for name, stored in inputs["steps"].items()}


def train(model, case, tensors):
    optimizer = optimizer_of(case["optimizer"], [p for p in model.parameters() if p.requires_grad])
    losses = []
    for step, labels in enumerate(tensors["step_labels"]):
        logits = model(**batch(tensors, case["inputs"], step)).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def main(folder, model_class):
    case = json.loads((folder / "adapter.json").read_text())
    tensors = load_file(folder / "expected.safetensors")
    inputs = batch(tensors, case["inputs"], None)
    for first in sorted(folder.glob("*/first")):
        result = {}
        for name in ("first", "trained"):
            with torch.no_grad():
                result[name] = adapted(folder, model_class, first.with_name(name))(**inputs).logits
        model = adapted(folder, model_class, first, trainable=True)
        result["losses"] = train(model, case, tensors)
        for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items():
            result[f"final/{name.removeprefix(PREFIX)}"] = value
        result = {name: value.clone().contiguous() for name, value in result.items()}
        save_file(result, first.with_name("result.safetensors"))


torch.set_num_threads(1)
if len(sys.argv) != 3:
    sys.exit(__doc__)
main(pathlib.Path(sys.argv[1]), sys.argv[2])
