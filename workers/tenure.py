"""For how long a worker may act for its runs: what it knows of its own lease, by its own clock.

Others go by SQL, and take its runs only after that. A worker that was frozen, or cut off from SQL, for longer finds its
tenure over, and a new one begins with its next heartbeat. What belongs to the old one never acts again, however late it
gets its turn: a request that waited in a socket meanwhile must not go out because the worker is alive once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

#: Whether something may still act.
Holds: TypeAlias = Callable[[], bool]
#: Begins something that may act for as long as the present tenure lasts.
Begin: TypeAlias = Callable[[], Holds]

#: The part of a lease that a worker counts on: clocks differ a little, and a word that was sent takes its time.
_COUNTED = 0.9


def without_end() -> Holds:
    """Begin what has no lease to lose."""
    return lambda: True


class Tenure:
    """One stretch of a lease in which no heartbeat came too late. Once over, it stays so."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        #: By the monotonic clock. Not by the loop's, which uvloop reads once a turn: frozen and thawed in the middle
        #: of a turn, it would show the time before.
        self.until = until

    def holds(self) -> bool:
        return time.monotonic() < self.until


class Lease:
    """A worker's lease; `tenure` is its present stretch."""

    def __init__(self, lasts: timedelta) -> None:
        self._counted = lasts.total_seconds() * _COUNTED
        self.tenure = Tenure(time.monotonic() + self._counted)

    def begin(self) -> Holds:
        """Begin something that may act until the present tenure is over."""
        return self.tenure.holds

    def renew(self, beaten_at: float) -> bool:
        """Note a heartbeat that was begun at this time of the monotonic clock; false if it came too late."""
        until = beaten_at + self._counted
        in_time = self.tenure.holds()
        if in_time:
            self.tenure.until = until
        else:
            self.tenure = Tenure(until)
        return in_time

    def left(self) -> timedelta:
        """Tell for how long it holds, if it is renewed no more."""
        return timedelta(seconds=self.tenure.until - time.monotonic())
