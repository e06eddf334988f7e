"""SANDBOX_CODE_AND_PROCESS: the runs of an app share a box, and no two apps do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import structlog

from schemas.outcome import Outcome
from schemas.run import Happening
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.overdue import in_time
from workers.executors.boxed.per_run import BoxPerRun
from workers.executors.boxed.supply import BoxSupply, Kind
from workers.executors.boxed.terms import Terms
from workers.executors.boxed.verdict import BoxDied, describe, verdict
from workers.sandboxes.box.base import CommandOutcome
from workers.sandboxes.box.egress import Egress

log = structlog.get_logger()

#: How long an app's box is kept after its last run.
KEPT = timedelta(minutes=5)
#: Boxes kept without a run in them; the one that has rested longest goes first.
MOST_IDLE = 16


class BoxPerApp:
    """A run whose box dies under it starts again, alone in a box of its own; one that kills that too is guilty."""

    def __init__(self, supply: BoxSupply, terms: Terms, *, kept: timedelta = KEPT, most_idle: int = MOST_IDLE) -> None:
        self._supply = supply
        self._terms = terms
        self._alone = BoxPerRun(supply, terms)
        self._kept = kept
        self._most_idle = most_idle
        self._boxes: dict[tuple[str, Egress], asyncio.Future[EngineBox]] = {}
        #: Apps without a run, the one that has rested longest first, each with the end of its rest.
        self._resting: dict[tuple[str, Egress], asyncio.TimerHandle] = {}
        self._closings: set[asyncio.Future[CommandOutcome]] = set()

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        kept = _Kept(events)
        try:
            return await self._together(order, kept)
        except BoxDied as died:
            if died.alone and died.began:
                return verdict(died.ending, self._terms.memory_mb)
            log.warning("box.died", app=order.app, run_id=order.run_id, reason=describe(died.ending))
        return await self._alone.run(replace(order, past=[*order.past, *kept.happenings]), events)

    async def aclose(self) -> None:
        for timer in self._resting.values():
            timer.cancel()
        await asyncio.gather(*self._closings)
        await self._supply.aclose()

    async def _together(self, order: RunOrder, events: EventSink) -> Outcome:
        """Execute a run in the box of its app, which rests when its last run has left."""
        key = (order.app, order.egress)
        if timer := self._resting.pop(key, None):
            timer.cancel()
        box = await self._find(key, order)
        try:
            return await in_time(order, box.run(order, events, self._terms.of(order)))
        finally:
            if box.runs == 0:
                self._rest(key, box)

    async def _find(self, key: tuple[str, Egress], order: RunOrder) -> EngineBox:
        while True:
            known = self._boxes.get(key)
            if known is None:
                known = self._boxes[key] = asyncio.ensure_future(self._supply.take(Kind.for_run(order)))
            try:
                box = known.result() if known.done() else await asyncio.shield(known)
            except BaseException:
                if known.done() and self._boxes.get(key) is known:
                    del self._boxes[key]
                raise
            if not box.is_dead:
                return box
            box.kill()
            if self._boxes.get(key) is known:
                del self._boxes[key]

    def _rest(self, key: tuple[str, Egress], box: EngineBox) -> None:
        if timer := self._resting.pop(key, None):
            timer.cancel()
        if box.is_dead:
            box.kill()
            return
        loop = asyncio.get_running_loop()
        self._resting[key] = loop.call_later(self._kept.total_seconds(), self._retire, key)
        while len(self._resting) > self._most_idle:
            self._retire(next(iter(self._resting)))

    def _retire(self, key: tuple[str, Egress]) -> None:
        self._resting.pop(key).cancel()
        box = self._boxes[key].result()
        if box.runs:
            return  # somebody has just come in, and will let it rest again
        del self._boxes[key]
        closing = asyncio.ensure_future(box.aclose())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)


class _Kept:
    """Keeps what a run has said, so that what is finished need not be done again in another box."""

    def __init__(self, events: EventSink) -> None:
        self._events = events
        self.happenings: list[Happening] = []

    def emit(self, happening: Happening) -> None:
        self._events.emit(happening)
        self.happenings.append(happening)

    async def flush(self) -> None:
        await self._events.flush()
