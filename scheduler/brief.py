"""Answers remembered for a moment, so that a busy route asks SQL once, however many requests wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

#: Most answers kept; beyond that the oldest are dropped, so that made-up keys can't fill the memory.
_MOST = 10_000


class Brief(Generic[Key, Answer]):
    """A short memory in front of a look-up.

    Another process's change is seen after `lasts` at the latest; this process's own at once, by `forget`.
    Requests that miss together share one look-up. An error is not remembered.
    """

    def __init__(self, look_up: Callable[[Key], Awaitable[Answer]], *, lasts: timedelta) -> None:
        self._look_up = look_up
        self._lasts = lasts.total_seconds()
        self._known: dict[Key, tuple[float, Answer]] = {}
        self._asked: dict[Key, asyncio.Task[Answer]] = {}

    async def get(self, key: Key) -> Answer:
        known = self._known.get(key)
        if known is not None and known[0] > asyncio.get_running_loop().time():
            return known[1]
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.create_task(self._ask(key), name="look-up")
        # Shielded: one caller that goes away must not take the answer from the others.
        return await asyncio.shield(asked)

    def forget(self) -> None:
        """Ask anew from now on; a look-up under way is not remembered either."""
        self._known.clear()
        self._asked.clear()

    async def _ask(self, key: Key) -> Answer:
        me = asyncio.current_task()
        try:
            answer = await self._look_up(key)
        finally:
            current = self._asked.get(key) is me
            if current:
                del self._asked[key]
        if current:
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known.pop(key, None)
            self._known[key] = (asyncio.get_running_loop().time() + self._lasts, answer)
        return answer
