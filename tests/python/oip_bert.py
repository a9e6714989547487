"""A BERT of Hugging Face behind an edge.

  oip_bert.py make FOLDER              saves a small classifier and its tokenizer there
  oip_bert.py check FOLDER GRPC HTTP   tritonclient's answers must be those of transformers

Prints a line for each check, and exits with 1 at the first that fails.
"""

import pathlib
import sys

import numpy as np
import torch
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException
import grpc

MODEL, POSITIONS, CLASSES = "bert", 24, 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = "the a network split is at cut edge cloud link slow fast ##er ##s ##ly , . ! héllo".split()
TEXTS = [
    "The network is split.",
    "a slower link, a faster edge! the cloud is at the cut",
    "hello?",
    "the " * 40,
    "",
]


def make(folder):
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=POSITIONS,
    )
    wrapped.save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=POSITIONS, num_labels=CLASSES,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)


def check(what, ok, found=""):
    if not ok:
        sys.exit(f"FAILED {what}: {found}")
    print(f"ok {what}")


class Reference:
    def __init__(self, folder):
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.model = BertForSequenceClassification.from_pretrained(folder).eval()

    def tokens(self, texts):
        encoded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=POSITIONS, return_tensors="np"
        )
        return encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(np.int64)

    def logits(self, ids, mask=None):
        ids = torch.from_numpy(ids)
        mask = torch.ones_like(ids) if mask is None else torch.from_numpy(mask)
        with torch.no_grad():
            return self.model(input_ids=ids, attention_mask=mask).logits.numpy()


def close(found, expected):
    if found.shape != expected.shape:
        return False
    return np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def tensor(module, name, values, dtype, binary=None):
    made = module.InferInput(name, list(values.shape), dtype)
    if binary is None:
        made.set_data_from_numpy(values)
    else:
        made.set_data_from_numpy(values, binary_data=binary)
    return made


def token_inputs(module, ids, mask, dtype="INT64", binary=None):
    kind = np.int64 if dtype == "INT64" else np.int32
    inputs = [tensor(module, "input_ids", ids.astype(kind), dtype, binary)]
    if mask is not None:
        inputs.append(tensor(module, "attention_mask", mask.astype(kind), dtype, binary))
    return inputs


def metadata(rpc, http):
    tokens = [-1, -1]
    inputs = {
        "input_ids": ("INT64", tokens), "attention_mask": ("INT64", tokens),
        "token_type_ids": ("INT64", tokens), "text": ("BYTES", [-1]),
    }
    for way, meta in [
        ("gRPC", rpc.get_model_metadata(MODEL, as_json=True)),
        ("HTTP", http.get_model_metadata(MODEL)),
    ]:
        def shapes(which):
            tensors = meta[which]
            return {t["name"]: (t["datatype"], [int(d) for d in t["shape"]]) for t in tensors}

        check(f"{way} inputs", shapes("inputs") == inputs, meta)
        check(f"{way} outputs", shapes("outputs") == {"logits": ("FP32", [-1, CLASSES])}, meta)


def answers(rpc, http, stub, reference):
    ids, mask = reference.tokens(TEXTS)
    check("texts are of different lengths", len(set(mask.sum(1))) > 2, mask)
    expected = reference.logits(ids, mask)
    for dtype in ("INT64", "INT32"):
        found = rpc.infer(MODEL, token_inputs(triton_grpc, ids, mask, dtype)).as_numpy("logits")
        check(f"gRPC {dtype}", close(found, expected), (found, expected))
        for binary in (True, False):
            inputs = token_inputs(triton_http, ids, mask, dtype, binary)
            found = http.infer(MODEL, inputs).as_numpy("logits")
            check(f"HTTP {dtype}, binary {binary}", close(found, expected), (found, expected))
    for length in (1, 2, POSITIONS):
        row = ids[1:2, :length] if length < ids.shape[1] else np.ones((1, length), np.int64)
        found = rpc.infer(MODEL, token_inputs(triton_grpc, row, None)).as_numpy("logits")
        check(f"{length} tokens, no mask", close(found, reference.logits(row)), found)

    typed = service_pb2.ModelInferRequest(model_name=MODEL)
    sent = typed.inputs.add(name="input_ids", datatype="INT64", shape=list(ids.shape))
    sent.contents.int64_contents.extend(ids.ravel().tolist())
    sent = typed.inputs.add(name="attention_mask", datatype="INT32", shape=list(mask.shape))
    sent.contents.int_contents.extend(mask.ravel().tolist())
    raw = stub.ModelInfer(typed).raw_output_contents[0]
    found = np.frombuffer(raw, np.float32).reshape(expected.shape)
    check("typed contents", close(found, expected), found)

    texts = np.array([text.encode() for text in TEXTS], dtype=np.object_)
    found = rpc.infer(MODEL, [tensor(triton_grpc, "text", texts, "BYTES")]).as_numpy("logits")
    check("gRPC text", close(found, expected), (found, expected))
    for binary in (True, False):
        inputs = [tensor(triton_http, "text", texts, "BYTES", binary)]
        found = http.infer(MODEL, inputs).as_numpy("logits")
        check(f"HTTP text, binary {binary}", close(found, expected), (found, expected))


def refused(what, code, words, call):
    try:
        call()
    except InferenceServerException as e:
        told = f"{e.status()}: {e.message()}"
        check(f"refuses {what}", code in str(e.status()) and words in e.message(), told)
    else:
        check(f"refuses {what}", False, "it was answered")


def mistakes(rpc, http, reference):
    ids, mask = reference.tokens(TEXTS[:2])
    outside = ids.copy()
    outside[1, 2] = len(SPECIAL + WORDS)
    long = np.ones((1, POSITIONS + 1), np.int64)
    most = len(SPECIAL + WORDS) - 1
    for what, words, values in [
        ("an id outside the vocabulary", f"at index [1, 2] (element {ids.shape[1] + 2}); send 0 to {most}",
         (outside, mask)),
        ("a mask of another batch", "has a batch of 1", (ids, mask[:1])),
        ("a mask of another length", "dimension 1 must be the same", (ids, mask[:, :-1])),
        ("a sequence that is too long", f"dimension 1 is {POSITIONS + 1}, not 1 to {POSITIONS}",
         (long, None)),
    ]:
        refused(f"{what} (gRPC)", "INVALID_ARGUMENT", words,
                lambda: rpc.infer(MODEL, token_inputs(triton_grpc, *values)))
        refused(f"{what} (HTTP)", "400", words,
                lambda: http.infer(MODEL, token_inputs(triton_http, *values)))
    only_mask = [tensor(triton_grpc, "attention_mask", mask, "INT64")]
    refused("a mask alone", "INVALID_ARGUMENT", '"input_ids" is missing',
            lambda: rpc.infer(MODEL, only_mask))
    floats = [tensor(triton_grpc, "input_ids", ids.astype(np.float32), "FP32")]
    refused("floats", "INVALID_ARGUMENT", "send INT64 or INT32", lambda: rpc.infer(MODEL, floats))
    found = rpc.infer(MODEL, token_inputs(triton_grpc, ids, mask)).as_numpy("logits")
    check("it still answers", close(found, reference.logits(ids, mask)), found)


def main():
    folder = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "make":
        return make(folder)
    rpc = triton_grpc.InferenceServerClient(sys.argv[3])
    http = triton_http.InferenceServerClient(sys.argv[4])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(sys.argv[3]))
    reference = Reference(folder)
    metadata(rpc, http)
    answers(rpc, http, stub, reference)
    mistakes(rpc, http, reference)
    print("all checks passed")


torch.set_num_threads(1)
main()
