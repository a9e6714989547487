"""Tensors between numpy and the wire: row-major, little-endian, without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidRequest, ServerError

Array: TypeAlias = NDArray[Any]
Value: TypeAlias = ArrayLike | str | Sequence[str]
"""What an input may be given as: anything that numpy makes an array of; for BYTES, one text or several."""

_NUMPY = {
    "BOOL": "?",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
# Kinds of numpy arrays that become a datatype without changing what they mean.
_ACCEPTED = {"f": "biuf", "i": "biu", "u": "bu", "b": "b"}


@dataclass(frozen=True)
class TensorSpec:
    """An input or an output of a model; -1 is an extent that each request chooses, the batch first."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor as it is sent."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


def encode(spec: TensorSpec, value: Value) -> Tensor:
    """A value as this input takes it. Integers become floats, and wide floats narrow ones; floats never integers."""
    if spec.datatype == "BYTES":
        return _encode_texts(spec, value)
    try:
        array = np.asarray(value)
        wanted = np.dtype(_NUMPY[spec.datatype])
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"input {spec.name!r} is no array: {error}") from error
    except KeyError:
        raise ServerError(f"input {spec.name!r} has the unknown datatype {spec.datatype}") from None
    if array.dtype.kind not in _ACCEPTED[wanted.kind]:
        raise InvalidRequest(f"input {spec.name!r} takes {spec.datatype}; an array of {array.dtype} cannot become that")
    data = np.ascontiguousarray(array, dtype=wanted).tobytes()
    return Tensor(spec.name, spec.datatype, array.shape, data)


def _encode_texts(spec: TensorSpec, value: Value) -> Tensor:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(f"input {spec.name!r} takes a text or a list of texts")
    encoded = [str(text).encode() for text in texts]
    data = b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
    return Tensor(spec.name, spec.datatype, (len(encoded),), data)


def decode(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Array:
    """An output as an array of its own, which may be written to; BYTES as an array of `bytes` objects."""
    if datatype == "BYTES":
        return _decode_texts(name, shape, bytes(data))
    if datatype not in _NUMPY:
        raise ServerError(f"output {name!r} has the unknown datatype {datatype}")
    try:
        return np.frombuffer(data, dtype=_NUMPY[datatype]).reshape(shape).copy()
    except ValueError as error:
        raise ServerError(f"output {name!r}: {len(data)} bytes are no {datatype} of shape {tuple(shape)}") from error


def _decode_texts(name: str, shape: Sequence[int], data: bytes) -> Array:
    elements, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        elements.append(data[at + 4 : end])
        at = end
    count = 1
    for extent in shape:
        count *= extent
    if at != len(data) or len(elements) != count:
        raise ServerError(f"output {name!r}: {len(data)} bytes are no BYTES of shape {tuple(shape)}")
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array.reshape(shape)
