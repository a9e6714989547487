"""What can go wrong, in one hierarchy, whatever the transport."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The name of a failure, as gRPC has it."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    TOO_LARGE = "TOO_LARGE"
    BUSY = "BUSY"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNSUPPORTED = "UNSUPPORTED"
    FAILED = "FAILED"
    INTERNAL = "INTERNAL"


class CleaveError(Exception):
    """A call that failed: `status` says how, `message` is one line for a person."""

    status: Status = Status.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


class InvalidRequest(CleaveError, ValueError):
    """The request is wrong and will be wrong again; the message says what to send instead."""

    status = Status.INVALID_ARGUMENT


class NotFound(CleaveError):
    """The model, its version or the path is not the one that is served."""

    status = Status.NOT_FOUND


class TooLarge(CleaveError):
    """The request is bigger than the edge accepts; send a smaller batch."""

    status = Status.TOO_LARGE


class Busy(CleaveError):
    """Too much is running already (over gRPC also: too large); the same request may succeed later."""

    status = Status.BUSY


class Unavailable(CleaveError):
    """The edge does not answer, or nothing is deployed, or the cloud is gone."""

    status = Status.UNAVAILABLE

    def __init__(self, message: str, *, sent: bool = True) -> None:
        """`sent`: whether the edge may have seen the request."""
        super().__init__(message)
        self.sent = sent


class DeadlineExceeded(CleaveError, TimeoutError):
    """No answer within the time allowed, here or on the edge (`edge.deadline_ms`)."""

    status = Status.DEADLINE_EXCEEDED


class Unsupported(CleaveError):
    """This transport or this edge does not have the call."""

    status = Status.UNSUPPORTED


class GenerationFailed(CleaveError):
    """A generation over gRPC that was refused or broke off: its protocol has a text for that, and no code."""

    status = Status.FAILED


class ServerError(CleaveError):
    """The edge is at fault, or what answered is no Cleave edge."""


_BY_HTTP: dict[int, type[CleaveError]] = {
    400: InvalidRequest,
    404: NotFound,
    405: Unsupported,
    413: TooLarge,
    429: Busy,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}

_BY_GRPC: dict[str, type[CleaveError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": NotFound,
    "OUT_OF_RANGE": TooLarge,
    "RESOURCE_EXHAUSTED": Busy,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNIMPLEMENTED": Unsupported,
}


# Of an error inside a stream of events, whose HTTP status was 200.
_BY_OPENAI: dict[str, type[CleaveError]] = {
    "invalid_request_error": InvalidRequest,
    "rate_limit_error": Busy,
    "service_unavailable_error": Unavailable,
    "timeout_error": DeadlineExceeded,
}


def from_http(status: int, message: str) -> CleaveError:
    """The failure that an HTTP status stands for."""
    return _BY_HTTP.get(status, ServerError)(message)


def from_grpc(code: str, message: str) -> CleaveError:
    """The failure that the name of a gRPC code stands for."""
    return _BY_GRPC.get(code, ServerError)(message)


def from_openai(error: dict[str, object]) -> CleaveError:
    """The failure that an error object of OpenAI's API stands for."""
    return _BY_OPENAI.get(str(error.get("type")), ServerError)(str(error.get("message")))
