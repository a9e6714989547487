"""The answer to a request: arrays by name, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from .errors import ServerError
from .tensors import Array
from .timing import Timing


@dataclass(frozen=True)
class ExitUse:
    """Which early exits answered, if the edge has some."""

    stages: tuple[str, ...]
    """The stage behind which a sample left, or "none": one for all of the batch, or one for each sample."""
    confidence: float
    """Softmax probability of the answer that is least sure."""
    offline: bool
    """Whether exits answered because the cloud did not."""

    @classmethod
    def read(cls, parameters: Mapping[str, object]) -> ExitUse | None:
        """From the parameters of an answer; None where there are no exits."""
        stages, confidence = parameters.get("exit"), parameters.get("confidence")
        if not isinstance(stages, str) or not isinstance(confidence, int | float):
            return None
        return cls(tuple(stages.split(",")), float(confidence), parameters.get("offline") is True)


@dataclass(frozen=True, repr=False)
class Answer(Mapping[str, Array]):
    """Outputs of the model by name, as arrays of its own."""

    outputs: dict[str, Array]
    timing: Timing
    model: str
    version: str
    """The weights that answered: `seed-7`, `file-<hash>`, or `<run>-<step>`."""
    id: str
    exits: ExitUse | None
    elapsed_ms: float
    """What this client waited in all, the way to the edge and back and repetitions included."""

    @property
    def array(self) -> Array:
        """The output of a model that has one."""
        if len(self.outputs) != 1:
            raise KeyError(f"the answer has the outputs {', '.join(self.outputs)}: name one")
        return next(iter(self.outputs.values()))

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def _shapes(self) -> str:
        return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.outputs.items())

    def __repr__(self) -> str:
        return (
            f"Answer({self._shapes()}; {self.version}, split point {self.timing.split_point}, {self.elapsed_ms:.2f} ms)"
        )

    def _repr_html_(self) -> str:
        head = f"{self._shapes()} from {self.model} {self.version}, {self.elapsed_ms:.2f} ms at this client"
        left = "" if self.exits is None else f"<div>left at: {escape(', '.join(self.exits.stages))}</div>"
        return f"<div><code>{escape(head)}</code>{left}{self.timing._repr_html_()}</div>"


def described(parameters: Mapping[str, object]) -> tuple[Timing, ExitUse | None]:
    """What the parameters of an answer say."""
    return Timing.read(parameters), ExitUse.read(parameters)


def collected(pairs: list[tuple[str, Array]]) -> dict[str, Array]:
    """Outputs by name; an answer without any is none."""
    if not pairs:
        raise ServerError("the answer has no outputs")
    return dict(pairs)
