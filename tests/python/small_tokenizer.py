"""A small byte-level BPE tokenizer with a chat template: small_tokenizer.py FOLDER

Writes tokenizer.json and tokenizer_config.json as Hugging Face does.
"""

import json
import pathlib
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
SPECIAL = [END, "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = """
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('unknown role ' ~ message.role) }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>' + message['content'].strip() + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""
TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "an edge node and a cloud node run one network",
    "split the model where the activation is small",
    "wo die Brücke über den Fluß führt, größer als zuvor",
    "café, naïve, résumé, 東京, 日本語のテキスト",
] * 4


def train(vocabulary=384):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def write(folder):
    folder = pathlib.Path(folder)
    tokenizer = train()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer


if __name__ == "__main__":
    print(write(sys.argv[1]).get_vocab_size())
