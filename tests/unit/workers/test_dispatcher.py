"""A job's life, with SQL in a file and everything around it played by the test."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from dispatching import Noted, Rig, held_open, succeed

from dispatch.feed import Feed
from dispatch.store.runs import list_attempts, read_run
from schemas.errors import Unavailable
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType, Happening, RunEvent, RunStatus
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder


async def test_a_job_is_claimed_executed_and_recorded(rig: Rig) -> None:
    job, receipt = await rig.accept(), Noted()

    await rig.dispatcher(succeed).handle(job, receipt)

    events = [event.happening.type for event in await rig.feed.read(job.run_id)]
    assert await rig.status(job) == "succeeded"
    assert events == ["run_queued", "run_started", "run_completed"]
    assert (receipt.claimed, receipt.ends.get_nowait()) == ([True], RunStatus.SUCCEEDED)


async def test_a_doubled_message_is_dropped(rig: Rig) -> None:
    job, first, second = await rig.accept(), Noted(), Noted()
    dispatcher = rig.dispatcher(succeed)

    await dispatcher.handle(job, first)
    await dispatcher.handle(job, second)

    assert (first.claimed, second.claimed) == ([True], [False])


async def test_a_message_for_a_run_that_does_not_exist_is_dropped(rig: Rig) -> None:
    job, receipt = (await rig.accept()).model_copy(update={"run_id": "run_unknown"}), Noted()

    await rig.dispatcher(succeed).handle(job, receipt)

    assert receipt.claimed == [False]


async def test_a_claim_that_fails_for_good_gives_its_slot_back(rig: Rig) -> None:
    job, receipt = await rig.accept(), Noted()
    dispatcher = rig.dispatcher(succeed)
    await rig.store.aclose()

    with pytest.raises(RuntimeError, match="shutdown"):
        await dispatcher.handle(job, receipt)

    assert receipt.claimed == [False]


async def test_a_users_error_fails_the_run(rig: Rig) -> None:
    async def fail(order: RunOrder, events: EventSink) -> Outcome:
        return Failed(error=RunError(kind=ErrorKind.USER, message="no such order", node_id="say"))

    job, receipt = await rig.accept(), Noted()
    await rig.dispatcher(fail).handle(job, receipt)

    assert await rig.status(job) == "failed"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (ErrorKind.TIMED_OUT, "timed_out"),
        (ErrorKind.MEMORY_EXCEEDED, "memory_exceeded"),
        (ErrorKind.OUTPUT_EXCEEDED, "output_exceeded"),
        (ErrorKind.CANCELLED, "cancelled"),
        (ErrorKind.INTERNAL, "failed"),
    ],
)
async def test_the_kind_of_error_decides_the_status(rig: Rig, kind: ErrorKind, status: str) -> None:
    async def fail(order: RunOrder, events: EventSink) -> Outcome:
        return Failed(error=RunError(kind=kind, message="it broke"))

    job = await rig.accept()
    await rig.dispatcher(fail).handle(job, Noted())

    assert await rig.status(job) == status


async def test_an_executor_that_breaks_fails_its_run_and_not_the_worker(rig: Rig) -> None:
    async def breaks(order: RunOrder, events: EventSink) -> Outcome:
        raise ZeroDivisionError("oops")

    bad, good = await rig.accept(), await rig.accept()
    await rig.dispatcher(breaks).handle(bad, Noted())
    await rig.dispatcher(succeed).handle(good, Noted())

    async with rig.store.read() as connection:
        row = await read_run(connection, bad.run_id)
    assert row is not None
    assert (row["status"], row["error"]["kind"]) == ("failed", "internal_error")
    assert await rig.status(good) == "succeeded"


async def test_what_is_missing_for_now_is_tried_again_later(rig: Rig) -> None:
    async def away(order: RunOrder, events: EventSink) -> Outcome:
        raise Unavailable("the executor is away")

    job = await rig.accept()
    await rig.dispatcher(away).handle(job, Noted())

    assert await rig.status(job) == "queued"


async def test_a_mode_that_this_worker_lacks_is_tried_elsewhere(rig: Rig) -> None:
    job = await rig.accept(mode="docker")

    await rig.dispatcher(succeed).handle(job, Noted())

    assert await rig.status(job) == "queued"


async def test_a_version_that_is_gone_fails_the_run_with_the_reason(rig: Rig) -> None:
    job = await rig.accept(version=7)

    await rig.dispatcher(succeed).handle(job, Noted())

    async with rig.store.read() as connection:
        row = await read_run(connection, job.run_id)
    assert row is not None and row["error"]["message"] == "no version 7"


async def test_no_more_runs_execute_than_there_are_slots(rig: Rig) -> None:
    body, begun, _ = held_open()
    dispatcher = rig.dispatcher(body, concurrency=1)
    first, second = await rig.accept(), await rig.accept()
    one, two = Noted(), Noted()

    dispatcher.offer(first, one)
    dispatcher.offer(second, two)
    await begun.wait()

    assert (one.claimed, two.claimed) == ([True], [])
    dispatcher.cancel(first.run_id, "make room")
    await one.ends.get()
    dispatcher.stop_taking()
    await dispatcher.drain(timedelta(0))


async def test_a_cancelled_run_is_killed_and_recorded(rig: Rig) -> None:
    body, begun, killed = held_open()
    dispatcher = rig.dispatcher(body)
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await begun.wait()

    dispatcher.cancel(job.run_id, "enough")

    assert await receipt.ends.get() is RunStatus.CANCELLED
    assert killed.is_set()
    assert await rig.status(job) == "cancelled"


async def test_an_executor_that_lets_go_when_it_is_told_to_stop_has_its_word_recorded(rig: Rig) -> None:
    async def let_go(order: RunOrder, events: EventSink) -> Outcome:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Succeeded(result="it was just done")
        raise AssertionError

    begun = asyncio.Event()
    dispatcher = rig.dispatcher(let_go)
    job, receipt = await rig.accept(), Noted()
    dispatcher.offer(job, receipt)
    await begun.wait()

    dispatcher.cancel(job.run_id, "enough")

    assert await receipt.ends.get() is RunStatus.SUCCEEDED


async def test_a_drain_lets_runs_finish(rig: Rig) -> None:
    async def wait_for_it(order: RunOrder, events: EventSink) -> Outcome:
        begun.set()
        await may_end.wait()
        return Succeeded(result=1)

    begun, may_end = asyncio.Event(), asyncio.Event()
    dispatcher = rig.dispatcher(wait_for_it)
    job = await rig.accept()
    dispatcher.offer(job, Noted())
    await begun.wait()

    draining = asyncio.create_task(dispatcher.drain(timedelta(minutes=1)))
    may_end.set()
    await draining

    assert await rig.status(job) == "succeeded"


async def test_a_drain_that_takes_too_long_gives_the_run_back(rig: Rig) -> None:
    body, begun, killed = held_open()
    dispatcher = rig.dispatcher(body)
    job = await rig.accept()
    dispatcher.offer(job, Noted())
    await begun.wait()

    await dispatcher.drain(timedelta(0))

    assert killed.is_set()
    assert await rig.status(job) == "queued"


async def test_a_second_attempt_gets_what_the_first_has_done(rig: Rig) -> None:
    async def lose(order: RunOrder, events: EventSink) -> Outcome:
        events.emit(Happening(EventType.NODE_COMPLETED, {"outputs": {}, "attempt": 1}, node_id="say"))
        return Retry(after=timedelta(0), reason="the sandbox died")

    async def look(order: RunOrder, events: EventSink) -> Outcome:
        return Succeeded(result=[str(said.type) for said in order.past])

    job = await rig.accept()
    await rig.dispatcher(lose).handle(job, Noted())
    await rig.dispatcher(look).handle(job, Noted())

    async with rig.store.read() as connection:
        row = await read_run(connection, job.run_id)
    assert row is not None
    assert row["result"] == ["run_queued", "run_started", "node_completed", "run_queued"]


async def test_numbers_of_events_have_no_gaps_across_attempts(rig: Rig) -> None:
    async def lose(order: RunOrder, events: EventSink) -> Outcome:
        events.emit(Happening(EventType.LOG, {"message": "one"}))
        await events.flush()
        events.emit(Happening(EventType.LOG, {"message": "two"}))
        return Retry(after=timedelta(0), reason="the sandbox died")

    job = await rig.accept()
    await rig.dispatcher(lose).handle(job, Noted())
    await rig.dispatcher(succeed).handle(job, Noted())

    numbers = [event.seq for event in await rig.feed.read(job.run_id)]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_attempts_that_were_lost_do_not_lengthen_the_pause_before_the_next(rig: Rig) -> None:
    async def away(order: RunOrder, events: EventSink) -> Outcome:
        raise Unavailable("the executor is away")

    job = await rig.accept(max_attempts=10)
    await rig.lose_worker(job)
    await rig.lose_worker(job)
    await rig.dispatcher(away).handle(job, Noted())
    await rig.dispatcher(away).handle(job, Noted())

    async with rig.store.read() as connection:
        row = await read_run(connection, job.run_id)
        tried = await list_attempts(connection, job.run_id)
    assert row is not None
    assert row["run_at"] - tried[-1]["finished_at"] == timedelta(seconds=2)


async def test_a_database_that_is_away_for_a_moment_fails_no_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    outages = iter([ConnectionResetError("connection was closed in the middle of operation")])

    async def read(*arguments: Any, **options: Any) -> list[RunEvent]:
        for outage in outages:
            raise outage
        return await Feed.read(rig.feed, *arguments, **options)

    monkeypatch.setattr(rig.feed, "read", read)
    job = await rig.accept()
    await rig.lose_worker(job)

    await rig.dispatcher(succeed).handle(job, Noted())

    assert await rig.status(job) == "succeeded"
