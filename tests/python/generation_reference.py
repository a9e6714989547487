"""A small GPT-2 and what transformers answers with it: generation_reference.py FOLDER

Leaves a model with random weights, its tokenizer and its chat template in FOLDER, as save_pretrained
does, and in FOLDER/cases.json prompts and chats with their greedy answers.
"""

import json
import pathlib
import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import small_tokenizer

# As in edge-node/tests/e2e/text.rs.
SIZES = {"vocab_size": 384, "n_positions": 256, "n_embd": 48, "n_layer": 3, "n_head": 4}
PROMPT = "the quick brown fox"
PROMPTS = ["an edge node and", "größer als die Brücke", "日本語", PROMPT]
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "  why is the model split? "},
]
TOKENS = 64
# Where two logits are closer than this, rounding may decide which is the larger.
CLEAR = 1e-3


def is_text(tokenizer, token):
    """Whether a token is whole characters by itself."""
    text = tokenizer.decode([token])
    return text and "\ufffd" not in text


def model_of(tokenizer, seed):
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**SIZES, bos_token_id=None, eos_token_id=None)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("wte.weight"):
                parameter.normal_(0.0, 0.2)
                # Their logits are 0: answers are text, not halves of characters.
                parameter[[i for i in range(384) if not is_text(tokenizer, i)]] = 0
            elif parameter.dim() == 2:
                parameter.normal_(0.0, 0.3)
    return model


def answer(model, ids, ends):
    """Greedy ids without the end token, why they end, and how clear the choices were."""
    prompt = torch.tensor([ids])
    with torch.no_grad():
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=ends or None,
            pad_token_id=0,
        )
        logits = model(input_ids=out).logits[0, len(ids) - 1 : -1]
    best = logits.topk(2, dim=-1).values
    found = out[0, len(ids) :].tolist()
    ended = found[-1] in ends
    gap = (best[:, 0] - best[:, 1]).min().item()
    return found[:-1] if ended else found, "stop" if ended else "length", gap


def cases_of(model, tokenizer, folder):
    chat_ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    asked = [({"prompt": text}, tokenizer.encode(text)) for text in PROMPTS]
    asked.append(({"messages": CHAT}, chat_ids))
    free = {json.dumps(ids): answer(model, ids, [])[0] for _, ids in asked}
    # One more token that ends an answer, beside the tokenizer's own: it ends the first, not the last
    # prompt's, which other tests need long.
    long = set(free[json.dumps(tokenizer.encode(PROMPT))])
    candidates = [t for t in free[json.dumps(asked[0][1])][5:] if t not in long]
    ends = [tokenizer.eos_token_id, *candidates[:1]]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    cases = []
    for case, ids in asked:
        found, reason, gap = answer(model, ids, ends)
        text = tokenizer.decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        more = {"prompt_ids": ids, "ids": found, "text": text, "finish_reason": reason}
        cases.append(case | more | {"max_tokens": TOKENS, "gap": gap})
    return cases


def main():
    folder = pathlib.Path(sys.argv[1])
    small_tokenizer.write(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for seed in range(20):
        model = model_of(tokenizer, seed)
        cases = cases_of(model, tokenizer, folder)
        dull = any(len(set(case["ids"])) < 5 for case in cases)
        reasons = {case["finish_reason"] for case in cases}
        if min(case["gap"] for case in cases) > CLEAR and not dull and len(reasons) == 2:
            break
    else:
        sys.exit("no seed gives clear answers")
    config = (folder / "generation_config.json").read_text()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(config)
    (folder / "cases.json").write_text(json.dumps(cases))
    for case in cases:
        print(case["finish_reason"], len(case["ids"]), repr(case["text"]))


main()
