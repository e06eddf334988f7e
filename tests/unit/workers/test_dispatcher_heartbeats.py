"""What a worker's heartbeats and its lease do to the runs that it executes."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from dispatching import Noted, Rig, held_open, succeed

from dispatch.claims import Claim
from dispatch.leases import Owned
from dispatch.store.release import request_cancel
from schemas.outcome import ErrorKind, Failed, Outcome, RunError, Succeeded
from schemas.run import EventType, Happening, RunStatus
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.tenure import Lease


async def test_a_cancellation_whose_hint_was_lost_is_found_at_the_next_heartbeat(rig: Rig) -> None:
    body, begun, _ = held_open()
    dispatcher = rig.dispatcher(body)
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await begun.wait()
    async with rig.store.write() as connection:
        await request_cancel(connection, job.run_id, "enough")

    owned = [Owned(job.run_id, 1, "enough")]
    dispatcher.reconcile(owned, beaten_at=asyncio.get_running_loop().time(), before=dispatcher.executing())

    assert await receipt.ends.get() is RunStatus.CANCELLED


async def test_a_run_that_was_taken_away_is_stopped_and_writes_nothing(rig: Rig) -> None:
    body, begun, killed = held_open()
    dispatcher = rig.dispatcher(body)
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await begun.wait()

    dispatcher.reconcile([], beaten_at=asyncio.get_running_loop().time(), before=dispatcher.executing())

    assert await receipt.ends.get() is None
    assert killed.is_set()
    assert await rig.status(job) == "running"


async def test_a_run_that_was_claimed_during_the_heartbeat_is_left_alone(rig: Rig) -> None:
    body, begun, killed = held_open()
    dispatcher = rig.dispatcher(body)
    before = dispatcher.executing()
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await begun.wait()

    dispatcher.reconcile([], beaten_at=asyncio.get_running_loop().time(), before=before)

    assert not killed.is_set()
    dispatcher.cancel(job.run_id, "done here")
    await receipt.ends.get()


async def test_a_run_that_sql_gives_us_unasked_is_named_at_the_second_sight(rig: Rig) -> None:
    dispatcher = rig.dispatcher(succeed)
    stray = Owned("run_stray", 1, None)
    now = asyncio.get_running_loop().time()

    first = dispatcher.reconcile([stray], beaten_at=now, before=frozenset())
    second = dispatcher.reconcile([stray], beaten_at=now, before=frozenset())

    assert (first, second) == ([], [stray])


async def test_a_lost_lease_stops_the_run_at_its_next_word(rig: Rig) -> None:
    async def talk(order: RunOrder, events: EventSink) -> Outcome:
        frozen.set()
        await thawed.wait()
        events.emit(Happening(EventType.LOG, {"message": "still here"}))
        return Succeeded(result="too late")

    frozen, thawed = asyncio.Event(), asyncio.Event()
    dispatcher = rig.dispatcher(talk, lease=timedelta(hours=1))
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await frozen.wait()

    long_ago = asyncio.get_running_loop().time() - 3600
    dispatcher.reconcile([Owned(job.run_id, 1, None)], beaten_at=long_ago, before=dispatcher.executing())
    thawed.set()

    assert await receipt.ends.get() is None
    assert await rig.status(job) == "running"


async def test_a_run_whose_executor_does_not_keep_to_its_flows_limit_is_stopped(rig: Rig) -> None:
    body, begun, killed = held_open()
    dispatcher = rig.dispatcher(body)
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await begun.wait()

    dispatcher.stop_overdue(time.monotonic() + 60)
    still_runs = not killed.is_set()
    dispatcher.stop_overdue(time.monotonic() + 7200)

    assert await receipt.ends.get() is RunStatus.TIMED_OUT
    assert still_runs


def lapse(lease: Lease) -> None:
    """Have its tenure end, as when its worker was frozen."""
    lease.tenure.until = 0.0


async def test_a_heartbeat_that_came_too_late_stops_all_runs_also_those_that_sql_still_gives_us(rig: Rig) -> None:
    body, begun, killed = held_open()
    lease = Lease(timedelta(hours=1))
    dispatcher = rig.dispatcher(body, lease=lease)
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await begun.wait()
    lapse(lease)

    owned = [Owned(job.run_id, 1, None)]
    dispatcher.reconcile(owned, beaten_at=time.monotonic(), before=frozenset())

    assert await receipt.ends.get() is None
    assert killed.is_set()
    assert lease.tenure.holds()
    assert dispatcher.reconcile(owned, beaten_at=time.monotonic(), before=frozenset()) == []
    assert dispatcher.reconcile(owned, beaten_at=time.monotonic(), before=frozenset()) == owned


async def test_an_end_that_comes_when_the_tenure_is_over_is_not_recorded(rig: Rig) -> None:
    async def end_late(order: RunOrder, events: EventSink) -> Outcome:
        lapse(lease)
        return Failed(error=RunError(kind=ErrorKind.KILLED, message="its box was killed"))

    lease = Lease(timedelta(hours=1))
    dispatcher = rig.dispatcher(end_late, lease=lease)
    job, receipt = await rig.accept(), Noted()

    dispatcher.offer(job, receipt)

    assert await receipt.ends.get() is None
    assert await rig.status(job) == "running"


async def test_a_run_that_was_claimed_in_a_tenure_that_is_over_is_given_back_unexecuted(rig: Rig) -> None:
    lease = Lease(timedelta(hours=1))
    taking, may_answer = asyncio.Event(), asyncio.Event()
    take = rig.writer.take

    async def answer_late(*args: Any, **more: Any) -> Claim | None:
        claim = await take(*args, **more)
        taking.set()
        await may_answer.wait()
        return claim

    rig.writer.take = answer_late
    dispatcher = rig.dispatcher(succeed, lease=lease)
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await taking.wait()

    lapse(lease)
    lease.renew(time.monotonic())
    may_answer.set()

    assert await receipt.ends.get() is RunStatus.QUEUED
    assert await rig.status(job) == "queued"
