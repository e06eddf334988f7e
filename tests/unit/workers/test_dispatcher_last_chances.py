"""Runs on their last attempt, which have a worker to themselves for a while."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from dispatching import Noted, Rig

from dispatch.claims import Claim, LastChance
from dispatch.store.writer import RunWriter
from schemas.outcome import Outcome, Succeeded
from schemas.run import RunStatus
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder


async def test_a_run_on_its_last_chance_is_executed_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    leave, company_is_there, set_apart = asyncio.Event(), asyncio.Event(), asyncio.Event()
    seen: list[tuple[str, int]] = []

    async def look_around(order: RunOrder, events: EventSink) -> Outcome:
        if order.run_id == company.run_id:
            company_is_there.set()
            await leave.wait()
        seen.append((order.run_id, len(dispatcher.executing())))
        return Succeeded(result=None)

    async def take(*arguments: Any, **options: Any) -> Claim | None:
        try:
            return await RunWriter.take(rig.writer, *arguments, **options)
        except LastChance:
            set_apart.set()
            raise

    monkeypatch.setattr(rig.writer, "take", take)
    dispatcher = rig.dispatcher(look_around, concurrency=4)
    company, suspect, later = await rig.accept(), await rig.accept(max_attempts=2), await rig.accept()
    await rig.lose_worker(suspect)
    last, receipt = Noted(), Noted()
    dispatcher.offer(company, Noted())
    await company_is_there.wait()
    dispatcher.offer(suspect, receipt)
    await set_apart.wait()
    dispatcher.offer(later, last)
    assert (await rig.status(suspect), await rig.status(later), receipt.claimed) == ("queued", "queued", [])

    leave.set()
    await last.ends.get()

    assert seen == [(company.run_id, 1), (suspect.run_id, 1), (later.run_id, 1)]
    assert receipt.claimed == [True]


async def test_a_long_run_on_its_last_chance_does_not_keep_its_worker_to_itself_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.dispatcher._SOLITUDE", timedelta(milliseconds=50))
    alone, leave = asyncio.Event(), asyncio.Event()

    async def stay(order: RunOrder, events: EventSink) -> Outcome:
        if order.run_id == suspect.run_id:
            alone.set()
            await leave.wait()
        return Succeeded(result=None)

    dispatcher = rig.dispatcher(stay, concurrency=4)
    suspect, later = await rig.accept(max_attempts=2), await rig.accept()
    await rig.lose_worker(suspect)
    first, last = Noted(), Noted()
    dispatcher.offer(suspect, first)
    await alone.wait()
    dispatcher.offer(later, last)

    assert await last.ends.get() is RunStatus.SUCCEEDED
    assert await rig.status(suspect) == "running"
    leave.set()
    await first.ends.get()


async def test_a_run_that_may_try_again_has_company(rig: Rig) -> None:
    job = await rig.accept(max_attempts=3)
    await rig.lose_worker(job)

    claim = await rig.writer.take(job.run_id, owner="worker-1", executor="inline")

    assert claim is not None
    assert claim.attempt == 2
