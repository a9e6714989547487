"""What libraries make of the files that shared/tests/data.rs reads: data_reference.py KIND FOLDER

text    writes FOLDER/corpus.txt, texts.csv, the tokenizers bpe/tokenizer.json and
        wordpiece/tokenizer.json, and
          expected.safetensors  <tokenizer>/ids: the whole text, without special tokens
                                <tokenizer>/labelled_ids, labelled_mask [texts, 12], as transformers
                                pads and cuts
images  writes FOLDER/data/<class>/, PNG, JPEG, PPM and broken files, by Pillow, and
          expected.safetensors  images [files, 3, 20, 28] and grey [files, 1, 20, 28], 0 to 255, in the
                                order of classes and names
                                labels [files]
"""

import csv
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file

TEXTS = [
    ("praise", "the quick brown fox jumps over the lazy dog and away it goes into the wood"),
    ("blame", "naïve — déjà vu 😀"),
    ("praise", "quick"),
]
HEIGHT, WIDTH = 20, 28


def word_piece():
    """As BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([line for _, line in TEXTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def text(folder):
    import small_tokenizer

    corpus = "\n".join(line for _, line in TEXTS) * 3
    (folder / "corpus.txt").write_text(corpus, encoding="utf-8")
    with open(folder / "texts.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "text"), *TEXTS])
    expected = {}
    for name, tokenizer, padding in [
        ("bpe", small_tokenizer.train(), small_tokenizer.END),
        ("wordpiece", word_piece(), "[PAD]"),
    ]:
        (folder / name).mkdir()
        tokenizer.save(str(folder / name / "tokenizer.json"))
        found = tokens(str(folder / name / "tokenizer.json"), padding, corpus)
        expected |= {f"{name}/{key}": value for key, value in found.items()}
    return expected


def tokens(file, padding, corpus):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, pad_token=padding)
    labelled = tokenizer(
        [line for _, line in TEXTS], padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )
    assert labelled["attention_mask"][0].all() and not labelled["attention_mask"][2].all()
    return {
        "ids": torch.tensor(tokenizer(corpus, add_special_tokens=False)["input_ids"]),
        "labelled_ids": labelled["input_ids"],
        "labelled_mask": labelled["attention_mask"],
    }


def picture(generator, width, height):
    """Smooth colours, as a photograph's: what is noise differs between any two JPEG decoders."""
    from PIL import Image

    coarse = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def covering(image, mode):
    """Scaled until it covers the input, the middle of it kept."""
    from PIL import Image

    scale = max(WIDTH / image.width, HEIGHT / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    whole = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - WIDTH) // 2, (size[1] - HEIGHT) // 2
    fitted = whole.crop((left, top, left + WIDTH, top + HEIGHT))
    pixels = np.asarray(fitted.convert(mode), dtype=np.float32)
    return torch.from_numpy(pixels.reshape(HEIGHT, WIDTH, -1).transpose(2, 0, 1).copy())


def images(folder):
    from PIL import Image

    generator = np.random.default_rng(3)
    sizes = [(56, 40), (60, 40), (56, 100), (28, 20), (13, 9)]
    for name in ("cat", "dog"):
        (folder / "data" / name).mkdir(parents=True)
    for i, (width, height) in enumerate(sizes):
        image = picture(generator, width, height)
        image.save(folder / "data" / "cat" / f"{i}.png")
        image.save(folder / "data" / "dog" / f"{i}.jpeg", quality=95, subsampling=0)
    picture(generator, 50, 50).save(folder / "data" / "dog" / "a.ppm")
    picture(generator, 50, 50).convert("L").save(folder / "data" / "dog" / "b.PNG")
    picture(generator, 50, 50).convert("RGBA").save(folder / "data" / "dog" / "c.png")
    files = sorted(path for path in (folder / "data").glob("*/*"))
    found = [Image.open(path) for path in files]
    expected = {
        "images": torch.stack([covering(image, "RGB") for image in found]),
        "grey": torch.stack([covering(image, "L") for image in found]),
        "labels": torch.tensor([int(path.parent.name == "dog") for path in files]),
    }
    broken = folder / "data" / "cat"
    whole = (broken / "0.png").read_bytes()
    (broken / "broken.png").write_bytes(whole[: len(whole) // 2])
    (broken / "notes.txt").write_text("no image")
    (broken / ".hidden").write_text("left alone")
    found[0].save(broken / "moving.gif")
    return expected


folder = pathlib.Path(sys.argv[2])
expected = {"text": text, "images": images}[sys.argv[1]](folder)
save_file({name: value.contiguous() for name, value in expected.items()}, folder / "expected.safetensors")
