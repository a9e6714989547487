"""Which failures are tried again, when, and until when."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from .errors import Busy, CleaveError, DeadlineExceeded, Unavailable


@dataclass(frozen=True)
class Retry:
    """Calls that change nothing are sent again when the edge was away or busy: inference, metadata.

    A generation is sent again only if it cannot have reached the edge.
    """

    attempts: int = 3
    """Times that a call is sent in all; 1: never again."""
    first_s: float = 0.05
    """Pause before the second attempt; it doubles."""
    most_s: float = 1.0

    def pause(self, attempt: int, error: CleaveError, *, idempotent: bool) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed; None: give up."""
        away = isinstance(error, Unavailable) and (idempotent or not error.sent)
        busy = isinstance(error, Busy)
        if attempt >= self.attempts or not (away or busy):
            return None
        # Clients that failed together should not come back together.
        pause: float = min(self.first_s * 2.0 ** (attempt - 1), self.most_s)
        return pause * random.uniform(0.5, 1.0)


class Deadline:
    """A moment until which a call may take."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """Seconds that are left, above 0; raises when there are none."""
        left = self.at_most()
        if left <= 0:
            raise self.passed()
        return left

    def at_most(self) -> float:
        """Seconds that are left, or 0."""
        return max(0.0, self._end - time.monotonic())

    def allows(self, pause: float) -> bool:
        """Whether there is time left after such a pause."""
        return time.monotonic() + pause < self._end

    def passed(self) -> DeadlineExceeded:
        """The failure of who did not make it."""
        return DeadlineExceeded(f"no answer within {self.timeout:g} s")
