"""transformers' BERT on a case of shared/tests/zoo/bert.rs: bert_reference.py FOLDER

FOLDER/case.json       model (Cleave's spec), seed, steps, optimizers
writes
  model.safetensors     by save_pretrained, from random weights
  expected.safetensors  input_ids, attention_mask, token_type_ids  [batch, sequence], padded
                        output                                    of the head
                        step_{input_ids,attention_mask,token_type_ids}  [steps, batch, sequence]
                        step_labels                               [steps, batch]
                        <optimizer>/losses                        [steps]
                        <optimizer>/final/<name>                  weights after the last step
                        <optimizer>/output                        of them, for the first input
  facts.json            flops of the longest sequence, as PyTorch counts them
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification, BertModel

BATCH, SEQUENCE = 5, 11


def build(model):
    config = BertConfig(
        **{k: v for k, v in model.items() if k not in ("family", "head", "classes")},
        num_labels=model.get("classes", 2),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    if model["head"] == "classify":
        network = BertForSequenceClassification(config)
    else:
        network = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Fresh biases are 0 and norms 1: a mistake in them would not show.
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(5.0)
    return network


def batch(model, generator):
    """Rows of different lengths, padded. Id 0 is [PAD], and nothing else: PyTorch's embedding learns
    nothing at its row, and here nothing can be learned from what the mask hides."""
    def integers(low, high):
        return torch.randint(low, high, (BATCH, SEQUENCE), generator=generator)

    mask = torch.ones(BATCH, SEQUENCE, dtype=torch.int64)
    for row in range(1, BATCH):
        mask[row, SEQUENCE - 2 * row :] = 0
    return {
        "input_ids": integers(1, model["vocab_size"]) * mask,
        "attention_mask": mask,
        "token_type_ids": integers(0, model["type_vocab_size"]),
    }


def output_of(model, network, inputs):
    result = network(**inputs)
    if model["head"] == "classify":
        return result.logits
    states = result.last_hidden_state
    if model["head"] == "encode":
        return states
    # sentence-transformers: modules Pooling (mean) and Normalize.
    weight = inputs["attention_mask"].unsqueeze(-1).expand(states.size()).float()
    mean = torch.sum(states * weight, 1) / torch.clamp(weight.sum(1), min=1e-9)
    return torch.nn.functional.normalize(mean, p=2, dim=1)


def make_optimizer(spec, network):
    values = list(network.parameters())
    if spec["kind"] == "sgd":
        return torch.optim.SGD(values, lr=spec["learning_rate"], momentum=spec["momentum"])
    betas = (spec["beta1"], spec["beta2"])
    return torch.optim.Adam(values, lr=spec["learning_rate"], betas=betas, eps=spec["epsilon"])


def train(model, optimizer, initial, steps, labels):
    network = build(model)
    network.load_state_dict(initial)
    optimizer = make_optimizer(optimizer, network)
    losses = []
    for inputs, label in zip(steps, labels):
        loss = torch.nn.functional.cross_entropy(output_of(model, network, inputs), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), network


def flops(model, network):
    longest = torch.zeros(1, model["max_position_embeddings"], dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        network(input_ids=longest)
    return counter.get_total_flops()


def main(folder):
    case = json.loads((folder / "case.json").read_text())
    model = case["model"]
    torch.manual_seed(case["seed"])
    generator = torch.Generator().manual_seed(case["seed"])
    network = build(model).eval()
    network.save_pretrained(folder)
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    expected = dict(batch(model, generator))
    with torch.no_grad():
        expected["output"] = output_of(model, network, expected.copy())
        facts = {"flops": flops(model, network)}
    if case["steps"]:
        steps = [batch(model, generator) for _ in range(case["steps"])]
        labels = torch.randint(0, model["classes"], (case["steps"], BATCH), generator=generator)
        for name in steps[0]:
            expected[f"step_{name}"] = torch.stack([step[name] for step in steps])
        expected["step_labels"] = labels
        for kind, optimizer in case["optimizers"].items():
            losses, trained = train(model, optimizer, initial, steps, labels)
            expected[f"{kind}/losses"] = losses
            for name, value in trained.named_parameters():
                expected[f"{kind}/final/{name}"] = value.detach()
            with torch.no_grad():
                inputs = {name: expected[name] for name in steps[0]}
                expected[f"{kind}/output"] = output_of(model, trained, inputs)
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts))


torch.set_num_threads(1)
if len(sys.argv) != 2:
    sys.exit(__doc__)
main(pathlib.Path(sys.argv[1]))
