"""A job's life, with SQL in a file and everything around it played by the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatch.bell import LocalBell
from dispatch.claims import Claim, LastChance
from dispatch.feed import Feed
from dispatch.leases import Owned
from dispatch.store.release import lose_runs, request_cancel
from dispatch.store.runs import list_attempts, read_run, runs
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.catalog import load_catalog
from schemas.errors import NotFound, Unavailable
from schemas.flow import FlowDocument
from schemas.job import Job
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType, Happening, RunEvent, RunStatus
from schemas.validation import read_document
from tests.making import NO_OP, new_run
from workers.dispatcher import Dispatcher
from workers.engine.sink import EventSink
from workers.executors.base import Executor, RunOrder
from workers.tenure import Lease

Body = Callable[[RunOrder, EventSink], Awaitable[Outcome]]


class Played:
    """An executor made from a function."""

    default = "inline"

    def __init__(self, body: Body) -> None:
        self._body = body
        self.orders: list[RunOrder] = []

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        self.orders.append(order)
        return await self._body(order, events)

    async def aclose(self) -> None: ...

    def choose(self, mode: str | None) -> Executor:
        if mode is not None:
            raise Unavailable(f"no executor {mode!r} here")
        return self


class OneDocument:
    def __init__(self, document: FlowDocument) -> None:
        self._document = document

    async def read(self, app: str, flow: str, version: int) -> FlowDocument:
        if version != 1:
            raise NotFound(f"no version {version}")
        return self._document


class Noted:
    """A receipt that remembers."""

    def __init__(self) -> None:
        self.claimed: list[bool] = []
        self.ends: asyncio.Queue[RunStatus | None] = asyncio.Queue()

    def decided(self, claimed: bool) -> None:
        self.claimed.append(claimed)

    def finished(self, status: RunStatus | None) -> None:
        self.ends.put_nowait(status)


class Rig:
    """A dispatcher with one slot, and what it is made of."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.writer = RunWriter(store)
        self.feed = Feed(store, LocalBell())
        document, _ = read_document(NO_OP, catalog=load_catalog(), max_inline_http=timedelta(seconds=300))
        self._documents = OneDocument(document)

    def dispatcher(
        self, body: Body, *, concurrency: int = 1, lease: timedelta | Lease = timedelta(hours=1)
    ) -> Dispatcher:
        return Dispatcher(
            owner="worker-1",
            writer=self.writer,
            feed=self.feed,
            documents=self._documents,
            executors=Played(body),
            concurrency=concurrency,
            lease=lease if isinstance(lease, Lease) else Lease(lease),
        )

    async def accept(self, **changes: object) -> Job:
        accepted = await self.writer.accept(new_run(**changes))
        assert accepted.job is not None
        return accepted.job

    async def status(self, job: Job) -> str:
        async with self.store.read() as connection:
            row = await read_run(connection, job.run_id)
        assert row is not None
        return str(row["status"])


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    store = await Store.open(f"sqlite:///{tmp_path / 'flo.db'}")
    yield Rig(store)
    await store.aclose()


async def succeed(order: RunOrder, events: EventSink) -> Outcome:
    return Succeeded(result=order.payload)


def held_open() -> tuple[Body, asyncio.Event, asyncio.Event]:
    """An executor's body that says when it has begun, and when it was killed."""
    begun, killed = asyncio.Event(), asyncio.Event()

    async def body(order: RunOrder, events: EventSink) -> Outcome:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            killed.set()
        raise AssertionError

    return body, begun, killed


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


async def lose_worker(rig: Rig, job: Job) -> None:
    """Have an attempt at this run begun elsewhere, by a worker that dies of it."""
    assert await rig.writer.take(job.run_id, owner="worker-0", executor="inline") is not None
    async with rig.store.write() as connection:
        await lose_runs(connection, runs.c.id == job.run_id, reason="its worker stopped beating", most=1)


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
    await lose_worker(rig, suspect)
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
    await lose_worker(rig, suspect)
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
    await lose_worker(rig, job)

    claim = await rig.writer.take(job.run_id, owner="worker-1", executor="inline")

    assert claim is not None
    assert claim.attempt == 2


async def test_attempts_that_were_lost_do_not_lengthen_the_pause_before_the_next(rig: Rig) -> None:
    async def away(order: RunOrder, events: EventSink) -> Outcome:
        raise Unavailable("the executor is away")

    job = await rig.accept(max_attempts=10)
    await lose_worker(rig, job)
    await lose_worker(rig, job)
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
    await lose_worker(rig, job)

    await rig.dispatcher(succeed).handle(job, Noted())

    assert await rig.status(job) == "succeeded"
