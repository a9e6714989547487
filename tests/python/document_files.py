"""Files that the documents' commands name, written without any package: pictures, tensors, tokenizers, tables."""

import array
import json
import random
import struct
import zlib

GPT2 = """
split_point = 1
[model]
family = "gpt2"
vocab_size = 512
n_positions = 256
n_embd = 16
n_layer = 2
n_head = 2
tied = false
[weights]
tokenizer = "text/bytes.json"
[data]
kind = "text"
path = "text/book.txt"
sequence = 16
unit = "byte"
"""
BERT = """
split_point = 2
[model]
family = "bert"
vocab_size = 300
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 24
max_position_embeddings = 24
head = "classify"
classes = 3
[weights]
tokenizer = "text/words.json"
"""
MODEL = """
family = "mlp"
input = [1, 8, 8]
hidden = [16]
classes = 10
"""


def png(height, width):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes((x * y * 9) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg():
    """8 by 8 points of one grey: every coefficient is zero, and every code one bit."""

    def part(marker, data):
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    code = bytes([1] + [0] * 15 + [0])
    return b"".join(
        [
            b"\xff\xd8",
            part(0xDB, b"\0" + b"\1" * 64),
            part(0xC0, struct.pack(">BHHBBBB", 8, 8, 8, 1, 1, 0x11, 0)),
            part(0xC4, b"\x00" + code),
            part(0xC4, b"\x10" + code),
            part(0xDA, bytes([1, 1, 0, 0, 63, 0])),
            b"\x3f\xff\xd9",
        ]
    )


def npy(kind, shape, values):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    data = array.array({"<f4": "f", "<i8": "q"}[kind], values).tobytes()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def resnet18_shapes():
    """As torchvision names them."""

    def norm(name, width):
        yield from ((f"{name}.{part}", [width]) for part in ("weight", "bias", "running_mean", "running_var"))

    yield "conv1.weight", [64, 3, 7, 7]
    yield from norm("bn1", 64)
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            yield f"{name}.conv1.weight", [width, before, 3, 3]
            yield f"{name}.conv2.weight", [width, width, 3, 3]
            yield from norm(f"{name}.bn1", width)
            yield from norm(f"{name}.bn2", width)
            if before != width:
                yield f"{name}.downsample.0.weight", [width, before, 1, 1]
                yield from norm(f"{name}.downsample.1", width)
            before = width
    yield "fc.weight", [1000, 512]
    yield "fc.bias", [1000]


def write_resnet18(path, without=None):
    """All zeros, as a file with a hole: what is computed does not matter, what is there does."""
    header, end = {}, 0
    for name, shape in resnet18_shapes():
        if name == without:
            continue
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def tokenizer(model, **more):
    parts = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    return json.dumps(parts | {"pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model} | more)


def tokenizer_of_bytes():
    """Byte-level BPE that knows bytes and nothing longer: printable ones stand for themselves, others follow 255."""
    others = iter(range(256, 512))
    letters = [b if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174 else next(others) for b in range(256)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {chr(letter): at for at, letter in enumerate(letters)}, "merges": []}
    return tokenizer(model, pre_tokenizer=level, decoder=level)


def tokenizer_of_words():
    words = ["[PAD]", "[UNK]", "what", "a", "film", "never", "again", ".", "!"]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": {}}
    model |= {"max_input_chars_per_word": 100, "vocab": {word: at for at, word in enumerate(words)}}
    clean = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}
    clean["strip_accents"] = None
    return tokenizer(model, normalizer=clean, pre_tokenizer={"type": "BertPreTokenizer"})


def flowers(lines):
    """A table as long as the document says, with the rows that it shows, and one that lacks a number."""
    shown = [line.split(",") for line in lines[1:] if line != "..."]
    draw = random.Random(1)
    rows = [",".join([f"{float(x) + draw.random():.3f}" for x in row[:3]] + [row[3]]) for row in shown * 200]
    return "\n".join([lines[0], *rows, ",1.0,1.0," + shown[0][3]]) + "\n"


def write_all(folder):
    """What stands in no document: names as the documents have them."""
    draw = random.Random(7)
    line = ",".join("0.5" for _ in range(64)) + "\n"
    ids = [draw.randrange(9) for _ in range(8)]
    graph = {
        "nodes": [
            {"name": name, "edge_ms": edge, "cloud_ms": 1.0} for name, edge in (("a", 2.0), ("b", 9.0), ("c", 9.0))
        ],
        "tensors": [{"from": 0, "to": [1, 2], "uplink_ms": 4.0}],
        "round_trip_ms": 5.0,
    }
    files = {
        "digit.png": png(8, 8),
        "seven.png": png(8, 8),
        "scan.jpg": jpeg(),
        "cat.jpg": jpeg(),
        "imagenet.txt": "\n".join(f"class {n}" for n in range(1000)),
        "samples.csv": line * 2,
        "refused/samples.csv": line * 2 + line.removeprefix("0.5,"),
        "refused/x.npy": npy("<f4", [1, 9, 8], [0.5] * 72),
        "refused/fortran.npy": npy("<f4", [1, 1, 8, 8], [0.5] * 64).replace(b"order': False", b"order': True "),
        "houses.csv": "1.5\n",
        "mine/bad.csv": "time_s,uplink_bps,downlink_bps,rtt_ms\n0,5074914,-80846024,54.1\n",
        "mine/bad.toml": 'description = "a bad one"\nsources = ["none"]\n[trace]\ncsv = "bad.csv"\n',
        "x.npy": npy("<f4", [1, 1, 8, 8], [draw.random() for _ in range(64)]),
        "y.npy": npy("<f4", [1, 8, 8], [draw.random() for _ in range(64)]),
        "picture.npy": npy("<f4", [1, 3, 224, 224], [0.5] * (3 * 224 * 224)),
        "ids.csv": ",".join(map(str, ids)) + "\n",
        "ids.npy": npy("<i8", [1, 8], ids),
        "mask.npy": npy("<i8", [1, 8], [1] * 8),
        "review.txt": "What a film!\n",
        "model.json": json.dumps(graph),
        "my-model.toml": MODEL,
        "text/bytes.json": tokenizer_of_bytes(),
        "text/words.json": tokenizer_of_words(),
        "text/book.txt": "".join(draw.choice("abcdefgh .\n") for _ in range(16 * 1024)),
        "gpt2.toml": GPT2,
        "bert.toml": BERT,
    }
    files |= {f"mine/pictures/{kind}/{n}.png": png(16, 16 + n) for kind in ("one", "two", "three") for n in range(8)}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    write_resnet18(folder / "models/resnet18/model.safetensors")
    write_resnet18(folder / "models/short/model.safetensors", without="layer4.1.conv2.weight")
    (folder / "resnet18.safetensors").symlink_to("models/resnet18/model.safetensors")
