"""A client of Cleave's edge node: arrays in, arrays and where the time went out.

    import cleave

    with cleave.Client("http://127.0.0.1:8000") as edge:
        answer = edge.infer(digits)
        answer["logits"], answer.timing

It speaks the Open Inference Protocol v2, over REST (`http://`) or gRPC (`grpc://`), and OpenAI's completions for models
that generate text. [`AsyncClient`] is the same for asyncio.
"""

from .answer import Answer, ExitUse
from .async_client import AsyncClient
from .client import Client
from .errors import (
    Busy,
    CleaveError,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    NotFound,
    ServerError,
    Status,
    TooLarge,
    Unavailable,
    Unsupported,
)
from .generated import AsyncTextStream, Piece, TextStream
from .metadata import ModelMetadata, ServerMetadata
from .retry import Retry
from .tensors import TensorSpec
from .timing import Timing

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncTextStream",
    "Busy",
    "CleaveError",
    "Client",
    "DeadlineExceeded",
    "ExitUse",
    "GenerationFailed",
    "InvalidRequest",
    "ModelMetadata",
    "NotFound",
    "Piece",
    "Retry",
    "ServerError",
    "ServerMetadata",
    "Status",
    "TensorSpec",
    "TextStream",
    "Timing",
    "TooLarge",
    "Unavailable",
    "Unsupported",
]
