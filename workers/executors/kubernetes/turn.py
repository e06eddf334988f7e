"""One worker at a time does what need be done only once; the others stand by and take over when it stops renewing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from dispatch.leases import Leadership
from dispatch.store.session import is_outage

log = structlog.get_logger()

#: Questions to SQL while a turn lasts, by the holder to renew as by the others to take over.
_ASKED = 4
#: Pause before work that broke is begun again.
_AGAIN = timedelta(seconds=2)


class Turn:
    """This worker's turn at a duty. All that is done under it must be safe twice: the turn only saves work."""

    def __init__(
        self, leadership: Leadership, duty: str, work: Callable[[], Awaitable[None]], *, lasts: timedelta
    ) -> None:
        """`work` is done for as long as the turn lasts, and then cancelled."""
        self._leadership = leadership
        self._duty = duty
        self._work = work
        self._ask_every = lasts.total_seconds() / _ASKED
        self._asking: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._asking = asyncio.create_task(self._ask(), name=f"turn at {self._duty}")

    async def aclose(self) -> None:
        """Stop, and let another worker take over at once."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._working is not None:
            await self._rest()
            await self._leadership.release([self._duty])

    async def _ask(self) -> None:
        while True:
            try:
                mine = await self._leadership.hold(self._duty)
            except Exception as error:  # the edge of the duty: a worker that asks no more would keep it from no other
                if not is_outage(error):
                    log.exception("turn.unasked", duty=self._duty)
                mine = False  # the turn may be somebody else's before SQL answers again
            if mine and self._working is None:
                log.info("turn.taken", duty=self._duty)
                self._working = asyncio.create_task(self._go_on(), name=self._duty)
            elif not mine and self._working is not None:
                await self._rest()
            await asyncio.sleep(self._ask_every)

    async def _go_on(self) -> None:
        while True:
            try:
                await self._work()
            except Exception:  # the edge of the duty: others depend on it, so it is begun anew
                log.exception("turn.broke", duty=self._duty)
            await asyncio.sleep(_AGAIN.total_seconds())

    async def _rest(self) -> None:
        assert self._working is not None
        self._working.cancel()
        await asyncio.gather(self._working, return_exceptions=True)
        self._working = None
