"""The feed of run events: replay what SQL has, then follow it live, in any process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import select

from dispatch.bell import Bell, Topic
from dispatch.store.blobs import unpacked
from dispatch.store.runs import run_events
from dispatch.store.session import Store
from schemas.run import EventType, Happening, RunEvent

#: How often a follower looks by itself, in seconds: hints may be lost, and without Redis there are none.
_LOOK_WITH_BELL = 1.0
_LOOK_WITHOUT_BELL = 0.1


class Feed:
    """One process's view of all runs' events. Reading never slows the run: followers only ever read SQL."""

    def __init__(self, store: Store, bell: Bell) -> None:
        self._store = store
        self._bell = bell
        self._followers: dict[str, set[asyncio.Event]] = defaultdict(set)
        bell.listen(Topic.EVENTS, self._wake)

    def announce(self, events: Sequence[RunEvent]) -> None:
        """Tell every process that these events are in SQL now."""
        newest = {event.run_id: event.seq for event in events}
        self._bell.ring(Topic.EVENTS, [[run_id, seq] for run_id, seq in newest.items()])

    async def read(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[RunEvent]:
        """Read up to `limit` events that come after number `after`."""
        query = (
            select(run_events)
            .where(run_events.c.run_id == run_id, run_events.c.seq > after)
            .order_by(run_events.c.seq)
            .limit(limit)
        )
        async with self._store.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
            return [event_of(row) for row in await unpacked(connection, rows)]

    async def wait(self, run_id: str, *, after: int, timeout: timedelta) -> list[RunEvent]:
        """Read like `read`, but wait up to `timeout` for the first event to come."""
        deadline = asyncio.get_running_loop().time() + timeout.total_seconds()
        with _Ear(self._followers, run_id) as ear:
            while True:
                ear.clear()
                events = await self.read(run_id, after=after)
                left = deadline - asyncio.get_running_loop().time()
                if events or left <= 0:
                    return events
                await self._hint(ear, most=left)

    async def follow(self, run_id: str, *, after: int = 0) -> AsyncIterator[RunEvent]:
        """Yield the events after number `after`, then each new one, until the run is over."""
        with _Ear(self._followers, run_id) as ear:
            while True:
                ear.clear()
                for event in await self.read(run_id, after=after):
                    after = event.seq
                    yield event
                    if event.happening.type is EventType.RUN_COMPLETED and not await self._goes_on(run_id, after):
                        return
                if not ear.is_set():
                    await self._hint(ear, most=_LOOK_WITH_BELL)

    async def _goes_on(self, run_id: str, after: int) -> bool:
        """A dead-lettered run that was redriven has events after its (first) end."""
        return bool(await self.read(run_id, after=after, limit=1))

    async def _hint(self, ear: asyncio.Event, *, most: float) -> None:
        usual = _LOOK_WITH_BELL if self._bell.live else _LOOK_WITHOUT_BELL
        try:
            async with asyncio.timeout(min(most, usual)):
                await ear.wait()
        except TimeoutError:
            return

    def _wake(self, hint: object) -> None:
        if not self._followers:
            return
        for run_id, _ in cast(list[tuple[str, int]], hint):
            for ear in self._followers.get(run_id, ()):
                ear.set()


class _Ear:
    """Registers a follower for the time of a `with` block."""

    def __init__(self, followers: dict[str, set[asyncio.Event]], run_id: str) -> None:
        self._followers = followers
        self._run_id = run_id
        self._event = asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        self._followers[self._run_id].add(self._event)
        return self._event

    def __exit__(self, *exc: object) -> None:
        mine = self._followers[self._run_id]
        mine.discard(self._event)
        if not mine:
            del self._followers[self._run_id]


def event_of(row: Mapping[Any, Any]) -> RunEvent:
    """Read a row of `run_events`."""
    return RunEvent(
        row["run_id"], row["seq"], Happening(EventType(row["type"]), row["data"], row["node_id"], row["time"])
    )
