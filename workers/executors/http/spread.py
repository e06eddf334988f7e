"""Which executor gets the next attempt: the one with the fewest, of those that can be asked at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from schemas.errors import Unavailable
from workers.executors.http.endpoint import Endpoint

#: Seconds that an attempt waits for an executor that takes it; then another worker, with other executors, may have it.
PATIENCE = 20.0


class Spread:
    """The executors of one worker, by URL."""

    def __init__(self, make: Callable[[str], Endpoint], *, patience: float = PATIENCE) -> None:
        self._make = make
        self._patience = patience
        self._endpoints: dict[str, Endpoint] = {}
        self._turn = 0
        self._freed = asyncio.Event()

    def deadline(self) -> float:
        """Tell until when an attempt that comes now waits."""
        return time.monotonic() + self._patience

    @asynccontextmanager
    async def place(self, urls: Sequence[str], *, deadline: float) -> AsyncIterator[Endpoint]:
        """Give the executor to ask next. Raises Unavailable when none can be asked before the deadline."""
        endpoint = await self._open_one(urls, deadline)
        endpoint.in_flight += 1
        try:
            yield endpoint
        finally:
            endpoint.in_flight -= 1
            self._freed.set()

    async def aclose(self) -> None:
        for endpoint in self._endpoints.values():
            await endpoint.aclose()

    async def _open_one(self, urls: Sequence[str], deadline: float) -> Endpoint:
        known = [self._endpoint(url) for url in urls]
        while True:
            now = time.monotonic()
            if found := self._best([one for one in known if one.closed_until <= now]):
                return found
            opens = min(one.closed_until for one in known)
            if opens > deadline:
                raise Unavailable("no executor takes the run: " + "; ".join(sorted({one.reason for one in known})))
            self._freed.clear()
            try:
                await asyncio.wait_for(self._freed.wait(), opens - now)
            except TimeoutError:
                continue

    def _best(self, open_ones: Sequence[Endpoint]) -> Endpoint | None:
        """Choose the one with the fewest runs; of equals, each in its turn."""
        if not open_ones:
            return None
        self._turn += 1
        turned = [open_ones[(self._turn + place) % len(open_ones)] for place in range(len(open_ones))]
        return min(turned, key=lambda one: one.in_flight)

    def _endpoint(self, url: str) -> Endpoint:
        if url not in self._endpoints:
            self._endpoints[url] = self._make(url)
        return self._endpoints[url]
