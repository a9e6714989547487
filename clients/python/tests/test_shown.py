"""How answers look in a terminal and in a notebook."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray

import cleave


class Balanced(HTMLParser):
    """Fails at a tag that is not closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_answer_of_the_edge(edge: cleave.Client, images: NDArray[np.float32]) -> None:
    answer = edge.infer(images)
    line = repr(answer)
    assert line.startswith("Answer(logits float32[3, 10]; seed-7, split point 2, ")
    assert "\n" not in line
    page = answer._repr_html_()
    text = Balanced(page).text
    for part, ms in answer.timing.parts.items():
        assert f"{part}{ms:.2f}" in text
    assert f"split point 2, {answer.timing.total_ms:.2f} ms" in text
    assert repr(edge).startswith("Client('")


def test_bars_follow_one_another_to_the_end() -> None:
    timing = cleave.Timing(4, 1.0, 0.0, 5.0, 1.0, 3.0, 0.0)
    bars = re.findall(r"margin-left:([\d.]+)%;width:([\d.]+)%", timing._repr_html_())
    assert [float(left) for left, _ in bars] == [0, 10, 10, 60, 70, 100]
    assert [float(width) for _, width in bars] == [10, 0.2, 50, 10, 30, 0.2]
    assert "Timing(split_point=4, 10.00 ms: head 1.00" in repr(timing)
    nothing = cleave.Timing(6, 0, 0, 0, 0, 0, 0)
    assert "nan" not in nothing._repr_html_()


def test_names_from_elsewhere_are_escaped() -> None:
    array = np.zeros((1, 2), np.float32)
    timing = cleave.Timing(1, 1, 1, 1, 1, 1, 1)
    exits = cleave.ExitUse(("<b>",), 0.5, False)
    answer = cleave.Answer({"<script>": array}, timing, "<i>", "<u>", "", exits, 1.0)
    page = answer._repr_html_()
    assert not re.search(r"<(script|i|u|b)>", page)
    Balanced(page)
