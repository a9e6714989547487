"""What an edge and its model say of themselves."""

from __future__ import annotations

from dataclasses import dataclass

from .tensors import TensorSpec


@dataclass(frozen=True)
class ServerMetadata:
    """What answers: `cleave`, its version, and the protocol's extensions that it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    """The weights that are deployed: `seed-7`, `file-<hash>`, or `<run>-<step>`."""
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
