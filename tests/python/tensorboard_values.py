"""Reads a run's event files with TensorBoard's own reader and compares them with metrics.jsonl.

    tensorboard_values.py RUN_FOLDER

Every figure of every line must be there once, at its step, and nothing else.
"""

import json
import pathlib
import sys

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SCORES = ["accuracy", "perplexity", "rmse", "r2"]
OF_STEPS = {
    "train/learning_rate": lambda line: line["learning_rate"],
    "train/gradient_norm": lambda line: line.get("gradient_norm"),
    "link/uplink_bytes": lambda line: line["uplink_bytes"],
    "link/downlink_bytes": lambda line: line["downlink_bytes"],
    "speed/steps_per_s": lambda line: 1e3 / line["step_ms"],
    "speed/overlap": lambda line: line.get("overlap"),
}


def expected(lines):
    """Step and value of each tag, in the order of the lines."""
    tags = {}

    def add(tag, line, value):
        if value is not None:
            tags.setdefault(tag, []).append((line["step"], float(numpy.float32(value))))

    for line in lines:
        part = {"step": "train", "validation": "validation"}[line["kind"]]
        for figure in ["loss", *SCORES]:
            add(f"{part}/{figure}", line, line.get(figure))
        if line["kind"] == "step":
            for tag, value in OF_STEPS.items():
                add(tag, line, value(line))
    return tags


def main():
    folder = pathlib.Path(sys.argv[1])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    want = expected(lines)
    assert "train/loss" in want and "validation/loss" in want, sorted(want)

    # 0 keeps every value; the default keeps a sample.
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    found = {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }
    assert sorted(found) == sorted(want), f"{sorted(found)} instead of {sorted(want)}"
    for tag, values in want.items():
        assert found[tag] == values, f"{tag}: {found[tag][:5]}... instead of {values[:5]}..."
    files = len(list(folder.glob("events.out.tfevents.*")))
    count = sum(map(len, found.values()))
    print(f"{files} event files, {len(found)} tags, {count} values as in metrics.jsonl")


main()
