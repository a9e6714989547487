"""Who generates: clients of an edge, and transformers in this process. Each has a `name` and `generate`."""

import itertools
import queue
import sys
import time
import typing

import nodes
import numpy
import torch
import tritonclient.grpc as triton

from generation_parts import gpt2

SPLIT, WHOLE = "Cleave, edge and cloud", "Cleave, all on the edge"
GENERATE, LOOP = "transformers' `generate`", "transformers in a loop of its own"
# For the next token.
PATIENCE_S = 120
CONFIG = """split_point = {split_point}
model = "gpt2"
[link]
profile = "none"
[edge]
# Slow machines shall take their time.
deadline_ms = 60000
"""


class Seen(typing.NamedTuple):
    """One answer: its tokens, and ms until the first and the last of them were there."""

    ids: list
    first_ms: float
    total_ms: float

    @property
    def further_ms(self):
        return (self.total_ms - self.first_ms) / (len(self.ids) - 1)

    @property
    def tokens_per_s(self):
        return len(self.ids) / self.total_ms * 1e3


def seen(begin, stamped):
    """From times and the tokens that came then."""
    times, ids = zip(*stamped)
    return Seen(list(ids), (times[0] - begin) * 1e3, (times[-1] - begin) * 1e3)


class Generate:
    """`generate`, told of each token by its streamer."""

    name = GENERATE

    def __init__(self, model):
        self.model = model

    def generate(self, prompt, count):
        stamps = Stamps()
        begin = time.perf_counter()
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                do_sample=False,
                use_cache=True,
                pad_token_id=0,
                streamer=stamps,
            )
        # The prompt is handed out first.
        return seen(begin, stamps.stamped[len(prompt) :])


class Stamps:
    """A streamer, as transformers calls it."""

    def __init__(self):
        self.stamped = []

    def put(self, tokens):
        now = time.perf_counter()
        self.stamped += [(now, token) for token in tokens.flatten().tolist()]

    def end(self):
        """There is nothing to flush."""


class Loop:
    """The model called token by token with its cache, without what `generate` does between two of them."""

    name = LOOP

    def __init__(self, model):
        self.model = model

    def generate(self, prompt, count):
        stamped = []
        begin = time.perf_counter()
        with torch.inference_mode():
            for token, _ in itertools.islice(gpt2.greedy(self.model, prompt), count):
                token = token.item()
                stamped.append((time.perf_counter(), token))
        return seen(begin, stamped)


class Streamed:
    """A client of an edge, over `ModelStreamInfer`: an answer's stream is opened within its time."""

    def __init__(self, name, port):
        self.name = name
        self.client = triton.InferenceServerClient(f"127.0.0.1:{port}")

    def generate(self, prompt, count):
        answers = queue.SimpleQueue()
        stamped = []
        begin = time.perf_counter()
        ids = triton.InferInput("input_ids", [1, len(prompt)], "INT64")
        ids.set_data_from_numpy(numpy.array([prompt], dtype=numpy.int64))
        self.client.start_stream(lambda result, error: answers.put((time.perf_counter(), result, error)))
        # Greedy is what an edge does unless it is told otherwise.
        self.client.async_stream_infer("digits", [ids], parameters={"max_tokens": count})
        while len(stamped) < count:
            now, tokens = self.next(answers)
            stamped += [(now, token) for token in tokens]
        self.client.stop_stream()
        return seen(begin, stamped)

    def next(self, answers):
        try:
            now, result, error = answers.get(timeout=PATIENCE_S)
        except queue.Empty:
            sys.exit(f"generation: {self.name}: no token within {PATIENCE_S} s")
        if error:
            sys.exit(f"generation: {self.name}: {error}")
        return now, result.as_numpy("token").tolist()

    def end(self):
        self.client.stop_stream(cancel_requests=True)
        self.client.close()


def start_edge(edge_node, folder, cloud, split_point, sets, ends):
    """An edge that serves; its port."""
    folder.mkdir()
    edge = nodes.Edge(edge_node, folder, cloud, sets)
    ends.callback(edge.end)
    edge.configure(CONFIG.format(split_point=split_point))
    edge.start()
    edge.metadata()
    return edge.grpc


def start(edge_node, work, weights, ends):
    """All four, and the split point of the pair."""
    model = gpt2.load(weights)
    # The embedding, the blocks, the head.
    blocks = model.config.n_layer
    split_points = {SPLIT: 1 + blocks // 2, WHOLE: blocks + 2}
    sets = [f"weights.file={weights}"]
    cloud = nodes.Cloud(edge_node, work, 'model="gpt2"', *sets)
    ends.callback(cloud.end)
    started = []
    for name, split_point in split_points.items():
        folder = work / f"edge-{split_point}"
        started.append(Streamed(name, start_edge(edge_node, folder, cloud, split_point, sets, ends)))
        ends.callback(started[-1].end)
    return [*started, Generate(model), Loop(model)], split_points[SPLIT]
