"""Bulkheads: so many nodes with one key at once, so that a slow target can't take every place of a worker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from schemas.flow import Bulkhead


class BulkheadFull(Exception):
    """Every place behind the bulkhead is taken."""


class Bulkheads(Protocol):
    """Where the places are counted."""

    def place(self, key: str, rule: Bulkhead) -> AbstractAsyncContextManager[None]:
        """Hold a place; wait for one, or raise BulkheadFull, as the rule says."""
        ...


class MemoryBulkheads:
    """Counts the places of one process. Who waits longest is next."""

    def __init__(self) -> None:
        self._all: dict[str, _Places] = {}

    @asynccontextmanager
    async def place(self, key: str, rule: Bulkhead) -> AsyncIterator[None]:
        places = self._all.setdefault(key, _Places())
        await places.enter(rule)
        try:
            yield
        finally:
            places.leave()
            if not places.taken:  # and so nobody waits: who leaves hands the place over
                self._all.pop(key, None)


class _Places:
    def __init__(self) -> None:
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, rule: Bulkhead) -> None:
        if self.taken < rule.max_concurrent:
            self.taken += 1
            return
        if rule.when_full == "fail":
            raise BulkheadFull
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place was ours already
                self.leave()
            raise

    def leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place changes hands, and stays taken
                return
        self.taken -= 1
