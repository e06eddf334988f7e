"""Tells the API what happens in an attempt, in batches, and that it lives when nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from schemas.json import JSONObject, JSONValue
from schemas.outcome import Cancelled, Outcome, Retry
from schemas.run import Happening
from workers.runner.away.line import CutOff, Line, Refused, Word

#: How long an event may wait for company, in seconds.
_LINGER = 0.05
#: Events in one batch, and about how many bytes.
_MOST = 1_000
_MOST_BYTES = 4 * 1024 * 1024
_AT_ONCE = timedelta(0)


class Telling:
    """The event sink of an attempt. `stop` is called once, when the attempt must end, with what that makes of it."""

    def __init__(self, line: Line, *, last_seq: int, renew_s: float, stop: Callable[[Outcome], None]) -> None:
        self._line = line
        self._renew_s = renew_s
        self._stop = stop
        #: The number of the newest event.
        self.last_seq = last_seq
        #: Whether the API still takes the attempt's word.
        self.counts = True
        self._unsaid: list[JSONObject] = []
        self._news = asyncio.Event()
        #: Somebody waits for what was emitted: it is told at once.
        self._hurry = asyncio.Event()
        self._said = asyncio.Condition()
        self._task = asyncio.create_task(self._tell(), name="call-backs")

    def emit(self, happening: Happening) -> None:
        """Number a happening; it is told within a moment."""
        self.last_seq += 1
        self._unsaid.append(
            {
                "seq": self.last_seq,
                "type": str(happening.type),
                "time": happening.time.isoformat(),
                "node_id": happening.node_id,
                "data": happening.data,
            }
        )
        self._news.set()

    async def flush(self) -> None:
        """Return once everything emitted so far is durable, or the attempt's word counts no more."""
        upto = self.last_seq
        if self._unsaid:
            self._hurry.set()
        async with self._said:
            await self._said.wait_for(lambda: not self.counts or not self._unsaid or self._first() > upto)

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _first(self) -> int:
        seq = self._unsaid[0]["seq"]
        assert isinstance(seq, int)
        return seq

    async def _tell(self) -> None:
        try:
            while self.counts:
                await self._wait_for_news()
                batch = self._batch()
                word = await (
                    self._line.tell("events", {"events": batch}) if batch else self._line.tell("progress", {})
                )
                await self._told(len(batch), word)
        except (Refused, CutOff) as why:
            await self._counts_no_more(str(why))

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(self._renew_s):
                await self._news.wait()
            async with asyncio.timeout(_LINGER):
                await self._hurry.wait()
        except TimeoutError:
            pass
        self._hurry.clear()
        self._news.clear()

    def _batch(self) -> list[JSONValue]:
        size = 0
        batch: list[JSONValue] = []
        for event in self._unsaid[:_MOST]:
            size += len(repr(event["data"]))
            if batch and size > _MOST_BYTES:
                break
            batch.append(event)
        return batch

    async def _told(self, number: int, word: Word) -> None:
        if not word.accepted:
            await self._counts_no_more(f"the run is {word.status}, and not this attempt's")
            return
        async with self._said:
            del self._unsaid[:number]
            if self._unsaid:
                self._news.set()
            self._said.notify_all()
        if word.cancel is not None:
            self._stop(Cancelled(reason=word.cancel))

    async def _counts_no_more(self, why: str) -> None:
        async with self._said:
            self.counts = False
            self._said.notify_all()
        self._stop(Retry(after=_AT_ONCE, reason=why))
