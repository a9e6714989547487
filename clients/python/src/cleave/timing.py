"""Where the time of a request went, as the edge reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import ServerError

# The hues tell the machines apart: edge, link, cloud. Text stays outside the bars, for light and dark pages.
_COLOURS = {
    "head": "#2a78b8",
    "encode": "#7fb0d8",
    "uplink": "#b0851f",
    "tail": "#2f8f5b",
    "downlink": "#d4ad55",
    "decode": "#86c4a0",
}


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each part; 0 for a part that did not run.

    The head runs on the edge, the tail in the cloud, where waiting for a compute thread counts as well. Uplink and
    downlink are measured across two clocks: their sum is exact, their difference an estimate.
    """

    split_point: int
    """Stages that ran on the edge."""
    head_ms: float
    encode_ms: float
    uplink_ms: float
    tail_ms: float
    downlink_ms: float
    decode_ms: float

    @classmethod
    def read(cls, parameters: Mapping[str, object]) -> Timing:
        """From the parameters of an answer."""

        def number(name: str) -> float:
            value = parameters.get(name)
            if isinstance(value, int | float):
                return float(value)
            raise ServerError(f"the answer has no {name}; is this the address of a Cleave edge?")

        return cls(int(number("split_point")), *(number(f"{part}_ms") for part in _COLOURS))

    @property
    def parts(self) -> dict[str, float]:
        """Milliseconds by part, in the order in which they run."""
        return {part: float(getattr(self, f"{part}_ms")) for part in _COLOURS}

    @property
    def total_ms(self) -> float:
        """All parts, one after the other."""
        return sum(self.parts.values())

    def __repr__(self) -> str:
        parts = ", ".join(f"{part} {ms:.2f}" for part, ms in self.parts.items())
        return f"Timing(split_point={self.split_point}, {self.total_ms:.2f} ms: {parts})"

    def _repr_html_(self) -> str:
        total = self.total_ms
        scale = 100 / total if total > 0 else 0.0
        rows, before = [], 0.0
        for part, ms in self.parts.items():
            bar = (
                f"margin-left:{before * scale:.2f}%;width:{max(ms * scale, 0.2):.2f}%;"
                f"height:0.9em;background:{_COLOURS[part]}"
            )
            rows.append(
                f"<tr><td style='text-align:left'>{part}</td>"
                f"<td style='text-align:right'>{ms:.2f}</td>"
                f"<td style='width:24em;text-align:left'><div style='{bar}'></div></td></tr>"
            )
            before += ms
        return (
            f"<table><caption style='text-align:left'>split point {self.split_point}, {total:.2f} ms</caption>"
            f"<tr><th style='text-align:left'>part</th><th>ms</th><th></th></tr>{''.join(rows)}</table>"
        )
