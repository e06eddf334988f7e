from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from dispatch.claims import Claim, LostClaim
from dispatch.store.writer import RunWriter
from schemas.run import EventType, Happening, RunEvent
from workers.run_log import RunLog


class Pen:
    """A writer that finishes when the test lets it, or fails."""

    def __init__(self) -> None:
        self.written: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.failure: Exception | None = None

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.written.append([event.seq for event in events])


class Attempt:
    def __init__(self) -> None:
        self.pen = Pen()
        self.lost: list[str] = []
        claim = Claim(
            run_id="run_1", attempt=2, max_attempts=3, app="shop", flow="greet", version=1, event=None, lane="flow",
            worker_group=None, priority=5, mode=None, backend_config=None, payload=None, last_seq=7,
            created_at=datetime.now(UTC), cancel_reason=None,
        )  # fmt: skip
        pen = cast(RunWriter, self.pen)
        self.log = RunLog(claim, pen, holds=lambda: True, on_lost=self.lost.append)

    def say(self, text: str = "hi") -> None:
        self.log.emit(Happening(EventType.LOG, {"message": text}))


@pytest.fixture
async def attempt() -> Attempt:
    return Attempt()


async def test_numbers_go_on_where_the_last_attempt_ended(attempt: Attempt) -> None:
    attempt.say()
    attempt.say()

    await attempt.log.flush()

    assert attempt.pen.written == [[8, 9]]


async def test_a_flush_waits_for_what_is_said_while_it_waits(attempt: Attempt) -> None:
    attempt.pen.gate.clear()
    attempt.say()
    flushing = asyncio.create_task(attempt.log.flush())
    await attempt.pen.entered.wait()
    attempt.say()

    attempt.pen.gate.set()
    await flushing

    assert attempt.pen.written == [[8], [9]]


async def test_many_nodes_may_flush_at_once(attempt: Attempt) -> None:
    async def node() -> None:
        attempt.say()
        await attempt.log.flush()

    async with asyncio.timeout(30):
        await asyncio.gather(*(node() for _ in range(50)))

    assert sorted(number for batch in attempt.pen.written for number in batch) == list(range(8, 58))


async def test_a_flush_in_the_same_turn_as_the_end_of_a_write_does_not_spin(attempt: Attempt) -> None:
    attempt.say()
    first = asyncio.create_task(attempt.log.flush())
    await attempt.pen.entered.wait()
    attempt.pen.entered.clear()
    late = [asyncio.create_task(attempt.log.flush()) for _ in range(5)]

    async with asyncio.timeout(30):
        await asyncio.gather(first, *late)

    assert attempt.pen.written == [[8]]


async def test_the_rest_is_handed_over_for_the_last_write(attempt: Attempt) -> None:
    attempt.say()
    await attempt.log.flush()
    attempt.say()

    rest = await attempt.log.take_rest()

    assert ([event.seq for event in rest], attempt.log.last_seq) == ([9], 9)


async def test_a_lost_claim_is_told_and_raised(attempt: Attempt) -> None:
    attempt.pen.failure = LostClaim("run_1")
    attempt.say()

    with pytest.raises(LostClaim):
        await attempt.log.flush()

    assert attempt.lost == ["another attempt has the run"]


async def test_events_that_could_not_be_written_end_the_attempt_whatever_the_reason(attempt: Attempt) -> None:
    attempt.pen.failure = RuntimeError("the driver said something new")
    attempt.say()

    with pytest.raises(LostClaim):
        await attempt.log.flush()

    assert attempt.lost == ["its events can't be stored: the driver said something new"]
