"""SANDBOX_PROCESS: each run has a box of its own, which is used once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from schemas.outcome import Failed, Outcome, Retry
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.overdue import in_time
from workers.executors.boxed.supply import BoxSupply, Kind
from workers.executors.boxed.terms import Terms
from workers.executors.boxed.verdict import BoxDied, verdict, with_hindsight

#: Boxes that a run is given before it is put off.
_MOST_BOXES = 3


class BoxPerRun:
    """Everything of a run, engine and code, is in its box, and dies with it."""

    def __init__(
        self, supply: BoxSupply, terms: Terms, *, on_given: Callable[[EngineBox, RunOrder], None] = lambda *_: None
    ) -> None:
        """`on_given` hears which box a run was given."""
        self._supply = supply
        self._terms = terms
        self._on_given = on_given

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        """Execute a run in a box that dies with it."""
        take = partial(self._take, order)
        return await run_alone(order, events, take=take, terms=self._terms, memory_mb=self._terms.memory_mb)

    async def _take(self, order: RunOrder) -> EngineBox:
        box = await self._supply.take(Kind.for_run(order))
        self._on_given(box, order)
        return box

    async def aclose(self) -> None:
        await self._supply.aclose()


async def run_alone(
    order: RunOrder,
    events: EventSink,
    *,
    take: Callable[[], Awaitable[EngineBox]],
    terms: Terms,
    memory_mb: int,
) -> Outcome:
    """Execute a run in a box that was never used; one that died before it had its order is replaced, some times.

    A run that succeeded, or is parked, is over when its box is killed: from then on that has no way out, and its death,
    which takes Docker ten times as long as the run, is nothing to wait for. `memory_mb` is what the box may use.
    """
    for _ in range(_MOST_BOXES):
        box = await take()
        try:
            outcome = await in_time(order, box.run(order, events, terms.of(order)))
        except BoxDied as died:
            if not died.began:
                continue
            outcome = verdict(died.ending, memory_mb)
        except BaseException:
            await box.aclose()
            raise
        if not isinstance(outcome, Failed | Retry):
            box.kill()
            return outcome
        return with_hindsight(outcome, await box.aclose(), memory_mb)
    return Retry(after=timedelta(seconds=1), reason="boxes were killed before they could begin with the run")
