"""The wall clock of a run in a box: what it stops, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import pytest
from box_in_hand import document, order

from schemas.outcome import ErrorKind, Failed, Outcome, Succeeded
from workers.executors.boxed import overdue
from workers.executors.boxed.overdue import in_time

_SHORT = replace(order(), document=document(settings={"max_execution_time_ms": 10}))


async def never() -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture(autouse=True)
def no_grace() -> Iterator[None]:
    with patch.object(overdue, "GRACE", timedelta(0)):
        yield


async def test_a_run_that_ends_in_time_is_left_alone() -> None:
    async def run() -> Outcome:
        return Succeeded(result=1)

    assert await in_time(_SHORT, run()) == Succeeded(result=1)
    await asyncio.sleep(0.02)  # nothing cancels this task later


async def test_a_run_that_is_late_is_stopped_and_says_so() -> None:
    outcome = await in_time(_SHORT, never())

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.TIMED_OUT
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_is_cancelled_from_outside_is_not_late() -> None:
    run = asyncio.create_task(in_time(order(), never()))
    await asyncio.sleep(0)
    run.cancel()

    with pytest.raises(asyncio.CancelledError):
        await run


async def test_who_is_late_and_cancelled_at_once_is_cancelled() -> None:
    async def stubborn() -> Outcome:
        try:
            return await never()
        finally:
            run.cancel()
            await asyncio.sleep(0)

    run = asyncio.create_task(in_time(_SHORT, stubborn()))

    with pytest.raises(asyncio.CancelledError):
        await run
