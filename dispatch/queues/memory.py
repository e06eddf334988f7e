"""A lane within one process: the in-memory twin, for tests and for programs that embed Flo."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence

from schemas.errors import Unavailable
from schemas.job import Job


class MemoryQueue:
    """Keeps messages in lists; `wipe` and `available` let a test play the broker's failures."""

    def __init__(self) -> None:
        self.available = True
        self._lanes: dict[str, deque[Job]] = defaultdict(deque)
        self._arrived = asyncio.Condition()

    async def publish(self, jobs: Sequence[Job]) -> None:
        await self.ping()
        async with self._arrived:
            for job in jobs:
                self._lanes[job.queue].append(job)
            self._arrived.notify_all()

    async def depth(self, queue: str) -> int:
        await self.ping()
        return len(self._lanes[queue])

    async def ping(self) -> None:
        if not self.available:
            raise Unavailable("the memory queue was made unavailable")

    async def aclose(self) -> None:
        self.wipe()

    async def take(self, queue: str) -> Job:
        """Wait for the next job of a queue: the most urgent first, then the oldest."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: bool(self._lanes[queue]))
            lane = self._lanes[queue]
            job = min(lane, key=lambda waiting: waiting.priority)
            lane.remove(job)
            return job

    def wipe(self) -> None:
        """Lose every message, as a broker that loses its memory does."""
        self._lanes.clear()
