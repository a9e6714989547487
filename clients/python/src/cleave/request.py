"""What is asked for, before a transport writes it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import InvalidRequest
from .metadata import ModelMetadata
from .tensors import Tensor, Value, encode


@dataclass(frozen=True)
class InferRequest:
    """One batch for a model."""

    model: str
    version: str
    tensors: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    """Outputs wanted; none: all."""
    exits: bool
    id: str


def infer_request(
    model: ModelMetadata,
    inputs: Value | Mapping[str, Value],
    *,
    version: str = "",
    outputs: Sequence[str] = (),
    exits: bool = True,
    id: str = "",
) -> InferRequest:
    """Inputs by name, or one value for the input of a model that has one."""
    known = {spec.name: spec for spec in model.inputs}
    if not isinstance(inputs, Mapping):
        inputs = {_only_input(model, inputs): inputs}
    unknown = [name for name in inputs if name not in known]
    if unknown:
        raise InvalidRequest(f"model {model.name!r} has no input {unknown[0]!r}; it has {', '.join(known)}")
    tensors = tuple(encode(known[name], value) for name, value in inputs.items())
    return InferRequest(model.name, version, tensors, tuple(outputs), exits, id)


def _only_input(model: ModelMetadata, value: Value) -> str:
    """The input that a value without a name is for: texts go to the one that takes them."""
    is_text = isinstance(value, str) or (
        isinstance(value, Sequence) and len(value) > 0 and all(isinstance(item, str) for item in value)
    )
    fits = [spec.name for spec in model.inputs if (spec.datatype == "BYTES") == is_text]
    if len(fits) == 1:
        return fits[0]
    kind = "texts" if is_text else "arrays"
    names = ", ".join(spec.name for spec in model.inputs)
    raise InvalidRequest(f"model {model.name!r} has {len(fits)} inputs for {kind}: name it, among {names}")


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; as it stands, greedily."""

    max_tokens: int = 16
    temperature: float = 0.0
    top_k: int = 0
    """Of the so many likeliest tokens; 0: of all."""
    top_p: float = 1.0
    seed: int | None = None
    """The same seed gives the same tokens, wherever the model is cut; None: another one each time."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer, and are no part of it."""


@dataclass(frozen=True)
class GenerateRequest:
    """A prompt to go on with, as a text or as token ids."""

    model: str
    prompt: str | tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True)
class ChatRequest:
    """Messages that the assistant answers; the edge applies the model's own chat template."""

    model: str
    messages: tuple[Mapping[str, str], ...]
    sampling: Sampling


def stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    """One stop string, or several."""
    return (stop,) if isinstance(stop, str) else tuple(stop)


def prompt(value: str | Sequence[int]) -> str | tuple[int, ...]:
    """A text, or token ids."""
    return value if isinstance(value, str) else tuple(int(token) for token in value)
