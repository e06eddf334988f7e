"""An executor's clock, by which its workers say until when they hold what they have sent.

"For ten seconds" would count from when it is read: by an executor that was frozen, and finds it in a socket, much too
late. So a worker names a time of the executor's own clock, which each answer shows (`flo-clock`), and what comes after
it counts for nothing.
"""

from __future__ import annotations

import secrets
import time

from schemas.errors import FloError

#: The header of every answer: `<which executor>:<seconds since it began>`.
HEADER = "flo-clock"


class AnotherClock(FloError):
    """The time is not by this executor's clock: it was started anew. Its answers show the clock."""


class Clock:
    """Of one executor, from its start."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(8)
        self._began = time.monotonic()

    def told(self) -> str:
        """Say what time it is."""
        return f"{self._id}:{time.monotonic() - self._began:.6f}"

    def moment(self, told: str) -> float:
        """Give a time of this clock as one of the monotonic clock. Raises AnotherClock."""
        whose, _, seconds = told.partition(":")
        if whose != self._id:
            raise AnotherClock("this time is not by the clock of this executor, which was started anew; see flo-clock")
        return self._began + float(seconds)


class FarClock:
    """The clock of an executor elsewhere, as far as its worker knows it: it may be later there, and never earlier."""

    def __init__(self) -> None:
        self._known: tuple[str, float] | None = None

    @property
    def is_known(self) -> bool:
        return self._known is not None

    def learn(self, told: str | None) -> None:
        """Take note of what an answer has just shown; that was the time when the answer was written."""
        whose, colon, seconds = (told or "").partition(":")
        try:
            self._known = (whose, float(seconds) - time.monotonic()) if colon else self._known
        except ValueError:  # no clock of ours: what is sent without a time counts from when it is read
            self._known = None

    def after(self, seconds: float) -> str | None:
        """Name the time so long from now; None while the clock is not known."""
        if self._known is None:
            return None
        whose, ahead = self._known
        return f"{whose}:{time.monotonic() + ahead + seconds:.6f}"
