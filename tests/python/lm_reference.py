"""Runs, trains and continues transformers' decoders: lm_reference.py FOLDER

FOLDER/case.json, written by shared/tests/zoo/decoder.rs:
  model       the spec as Cleave's configuration has it
  batch, sequence                            of the logits and of the training
  prompt, tokens                             of the generation
  steps                                      batches to train on
  optimizers {name: spec}                    of the training; without them there is none
What it leaves there:
  model.safetensors      as save_pretrained writes the model with its head
  bare/model.safetensors                     the same without the head's class: other names
  expected.safetensors   input, logits                         [batch, sequence, ...]
                         step_inputs, step_labels              [steps, batch, sequence]
                         <optimizer>/losses                    [steps]
                         <optimizer>/final/<name>              state dict after the training
                         generated                             [prompt + tokens], greedy
  facts.json             flops of one sample of the longest sequence
                         gap: least distance of the two largest logits while generating
"""

import copy
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

IGNORED = -100


def gpt2(spec):
    config = GPT2Config(
        vocab_size=spec["vocab_size"],
        n_positions=spec["n_positions"],
        n_embd=spec["n_embd"],
        n_layer=spec["n_layer"],
        n_head=spec["n_head"],
        layer_norm_epsilon=spec["layer_norm_epsilon"],
        tie_word_embeddings=spec["tied"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    return GPT2LMHeadModel(config), spec["n_positions"], "transformer"


def llama(spec):
    rope = {"rope_type": "default", "rope_theta": spec["rope_theta"]}
    if scaling := spec.get("rope_scaling"):
        rope |= {"rope_type": "llama3", **scaling}
    config = LlamaConfig(
        vocab_size=spec["vocab_size"],
        hidden_size=spec["hidden_size"],
        intermediate_size=spec["intermediate_size"],
        num_hidden_layers=spec["num_hidden_layers"],
        num_attention_heads=spec["num_attention_heads"],
        num_key_value_heads=spec["num_key_value_heads"],
        head_dim=spec.get("head_dim"),
        max_position_embeddings=spec["max_position_embeddings"],
        rms_norm_eps=spec["rms_norm_eps"],
        rope_parameters=rope,
        tie_word_embeddings=spec["tied"],
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config), spec["max_position_embeddings"], "model"


def randomise(model):
    """Every parameter random, and blocks strong enough that a tied model does not repeat its input."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "wte" in name or "embed_tokens" in name or "lm_head" in name:
                parameter.normal_(0.0, 0.2)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, 0.3)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            else:
                parameter.normal_(1.0, 0.1)


def optimizer_of(spec, parameters):
    if spec["kind"] == "sgd":
        return torch.optim.SGD(parameters, lr=spec["learning_rate"], momentum=spec["momentum"])
    betas = (spec["beta1"], spec["beta2"])
    return torch.optim.Adam(parameters, lr=spec["learning_rate"], betas=betas, eps=spec["epsilon"])


def train(model, case, inputs, labels, base):
    """Losses of each step and the weights after them, for each optimiser."""
    out = {}
    for name, spec in case["optimizers"].items():
        trained = copy.deepcopy(model).train()
        optimizer = optimizer_of(spec, trained.parameters())
        losses = []
        for ids, label in zip(inputs, labels):
            logits = trained(input_ids=ids).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), label.flatten(), ignore_index=IGNORED
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        out[f"{name}/losses"] = torch.tensor(losses)
        for key, value in trained.state_dict().items():
            out[f"{name}/final/{key.removeprefix(base + '.')}"] = value.clone().contiguous()
    return out


def continued(model, case):
    """Greedy continuation by transformers' own generate, and how clear its choices were."""
    vocabulary = model.config.vocab_size
    prompt = torch.randint(0, vocabulary, (1, case["prompt"]))
    with torch.no_grad():
        ids = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=case["tokens"],
            do_sample=False,
            pad_token_id=0,
        )
        logits = model(input_ids=ids).logits[0, case["prompt"] - 1 : -1]
    assert ids.shape[1] == case["prompt"] + case["tokens"]
    assert ids[0, case["prompt"] :].unique().numel() >= 8, f"a dull sequence: {ids}"
    best = logits.topk(2, dim=-1).values
    return ids[0].clone(), (best[:, 0] - best[:, 1]).min().item()


def main():
    folder = pathlib.Path(sys.argv[1])
    case = json.loads((folder / "case.json").read_text())
    spec = case["model"]
    torch.manual_seed(17)
    model, longest, base = {"gpt2": gpt2, "llama": llama}[spec["family"]](spec)
    randomise(model)
    model.eval()
    model.save_pretrained(folder)
    getattr(model, base).save_pretrained(folder / "bare")

    vocabulary = model.config.vocab_size
    shape = (case["batch"], case["sequence"])
    expected = {"input": torch.randint(0, vocabulary, shape)}
    with torch.no_grad():
        expected["logits"] = model(input_ids=expected["input"]).logits
        counter = FlopCounterMode(display=False)
        with counter:
            model(input_ids=torch.zeros(1, longest, dtype=torch.long))
    expected["generated"], gap = continued(model, case)
    inputs = torch.randint(0, vocabulary, (case["steps"], *shape))
    labels = inputs.roll(-1, dims=-1)
    labels[..., -1] = IGNORED
    expected |= {"step_inputs": inputs, "step_labels": labels}
    if "optimizers" in case:
        expected |= train(model, case, inputs, labels, base)
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    facts = {"flops": counter.get_total_flops(), "gap": gap}
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
