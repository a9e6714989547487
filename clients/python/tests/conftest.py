"""Nodes that tests share, and clients of both transports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nodes import DIGITS, LANGUAGE, Nodes
from numpy.typing import NDArray

import cleave

TRANSPORTS = ["rest", "grpc"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(tmp_path_factory.mktemp("digits"), DIGITS) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("language")
    nodes = Nodes(folder, LANGUAGE, "small")
    maker = nodes.repository / "tests" / "python" / "small_tokenizer.py"
    subprocess.run([sys.executable, str(maker), str(folder)], check=True)
    with nodes:
        yield nodes


@pytest.fixture(params=TRANSPORTS)
def edge(request: pytest.FixtureRequest, digits: Nodes) -> Iterator[cleave.Client]:
    with cleave.Client(getattr(digits, request.param)) as client:
        yield client


@pytest.fixture(params=TRANSPORTS)
def speaker(request: pytest.FixtureRequest, language: Nodes) -> Iterator[cleave.Client]:
    with cleave.Client(getattr(language, request.param), "small") as client:
        yield client


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(5).random((3, 1, 8, 8), dtype=np.float32)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Nodes]:
    """Nodes that a test may break."""
    with Nodes(tmp_path, DIGITS) as nodes:
        yield nodes
