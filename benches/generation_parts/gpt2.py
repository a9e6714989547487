"""GPT-2 124M with random weights, a prompt, and the greedy answer of transformers, whose choices are clear."""

import itertools
import sys

import torch
import transformers

PROMPT = 64
# Where two logits, of some tens, are closer than this, rounding may decide which is the larger.
CLEAR = 1e-3
# Distinct tokens of an answer, as a share of all: a dull one would hide a wrong cache.
DISTINCT = 1 / 8
SEEDS = 20


def randomise(model):
    """Blocks strong enough that a model whose head is its embedding does not repeat its input."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "wte" in name or "wpe" in name:
                parameter.normal_(0.0, 0.2)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, 0.05)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            else:
                parameter.normal_(1.0, 0.1)


def greedy(model, prompt):
    """Each next token, as a tensor, and the logits that it was chosen by, without end. For inference mode."""
    ids, cache = torch.tensor([prompt]), None
    while True:
        output = model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        cache, logits = output.cache, output.logits[0, -1]
        token = logits.argmax()
        yield token, logits
        ids = token.view(1, 1)


def answer(model, prompt, count):
    """The greedy tokens, and the least distance of the two largest logits."""
    ids, gaps = [], []
    with torch.inference_mode():
        for token, logits in itertools.islice(greedy(model, prompt), count):
            best = logits.topk(2).values
            ids.append(token.item())
            gaps.append((best[0] - best[1]).item())
    return ids, min(gaps)


def write(folder, count):
    """Leaves the model in the folder, as save_pretrained does; a prompt, and what follows it."""
    # No token ends an answer: all have the same length.
    config = transformers.GPT2Config(bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).float().eval()
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        randomise(model)
        prompt = torch.randint(0, config.vocab_size, (PROMPT,)).tolist()
        ids, gap = answer(model, prompt, count)
        if gap > CLEAR and len(set(ids)) >= DISTINCT * count:
            model.save_pretrained(folder)
            return prompt, ids
    sys.exit("generation: no seed gives a clear answer")


def load(folder):
    kind = transformers.GPT2LMHeadModel
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
