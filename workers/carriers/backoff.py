"""Pauses between tries at a carrier that is away: said once at its start and once at its end, not at every try."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

log = structlog.get_logger()

#: First and longest pause, in seconds.
_FIRST = 0.2
_LONGEST = 5.0


class Backoff:
    """Counts the tries that failed in a row."""

    def __init__(self, carrier: str, **where: str) -> None:
        self._carrier = carrier
        self._where = where
        self._failed = 0

    async def wait(self, error: Exception, *, unless: asyncio.Event) -> None:
        """Pause for longer after each failure; return at once when `unless` is set."""
        if not self._failed:
            log.warning("carrier.away", carrier=self._carrier, error=str(error), **self._where)
        pause = min(_FIRST * 2**self._failed, _LONGEST)
        self._failed = min(self._failed + 1, 10)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await unless.wait()

    def over(self) -> None:
        """Begin anew: the carrier has answered."""
        if self._failed:
            log.warning("carrier.back", carrier=self._carrier, **self._where)
        self._failed = 0
