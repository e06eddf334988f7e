"""Runs of an app with limits: never too many at once, each in its turn, and none forgotten."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from dispatch.claims import Claim, LostClaim
from dispatch.outbox import relay_due
from dispatch.queues.memory import MemoryQueue
from dispatch.store.keys import ensure_app
from dispatch.store.limits import put_limits
from dispatch.store.release import lose_runs, request_cancel
from dispatch.store.runs import outbox, read_run, runs
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from scheduler.reaper import call_waiting, republish_vanished
from schemas.app import AppLimits, RateLimit
from schemas.outcome import Retry, Succeeded
from tests.making import new_run

LATER = timedelta(minutes=1)
DONE = Succeeded(result=None)


@pytest.fixture
def writer(store: Store) -> RunWriter:
    return RunWriter(store)


async def limit(store: Store, **limits: Any) -> None:
    async with store.write() as connection:
        await ensure_app(connection, "shop")
        await put_limits(connection, "shop", AppLimits(**limits))


async def accept(writer: RunWriter, **changes: Any) -> str:
    return (await writer.accept(new_run(**changes))).run_id


async def take(writer: RunWriter, run_id: str) -> Claim | None:
    return await writer.take(run_id, owner="worker-1", executor="inline", alone=True)


async def taken(writer: RunWriter, run_id: str) -> Claim:
    claim = await take(writer, run_id)
    assert claim is not None
    return claim


async def finish(writer: RunWriter, claim: Claim) -> None:
    await writer.record(claim, DONE, events=[], last_seq=claim.last_seq)


async def calls(store: Store) -> list[str]:
    """Name the runs that were called, in the order in which their messages are due."""
    async with store.read() as connection:
        rows = await connection.execute(select(outbox.c.run_id).where(outbox.c.called).order_by(outbox.c.due_at))
        return [row.run_id for row in rows]


async def row_of(store: Store, run_id: str) -> Any:
    async with store.read() as connection:
        return await read_run(connection, run_id)


async def test_a_run_beyond_the_apps_limit_waits_and_says_for_what(store: Store, writer: RunWriter) -> None:
    await limit(store, max_concurrency=1)
    first, second = await accept(writer), await accept(writer)
    await taken(writer, first)

    assert await take(writer, second) is None

    row = await row_of(store, second)
    assert (row["status"], row["blocked_by"]) == ("queued", "one of the app's 1 places")


async def test_a_finished_run_calls_the_next_in_the_same_transaction(store: Store, writer: RunWriter) -> None:
    await limit(store, max_concurrency=1)
    first, second, third = [await accept(writer) for _ in range(3)]
    claim = await taken(writer, first)
    await take(writer, third)
    await take(writer, second)

    await finish(writer, claim)

    assert await calls(store) == [second]
    assert await take(writer, third) is None
    assert await take(writer, second) is not None


async def test_a_worker_hears_of_calls_in_its_own_lanes(store: Store) -> None:
    heard: list[str] = []
    writer = RunWriter(store, on_called=lambda jobs: heard.extend(job.run_id for job in jobs), served=("flow",))
    first, second = await accept(writer, concurrency_key="k"), await accept(writer, concurrency_key="k")
    claim = await taken(writer, first)
    await take(writer, second)

    await finish(writer, claim)

    assert heard == [second]
    assert await relay_due(store, MemoryQueue()) == 0, "the relay waits until the worker has had its chance"
    assert await relay_due(store, MemoryQueue(), now=datetime.now(UTC) + LATER) == 1


async def test_runs_with_one_key_are_serial_and_others_go_on(store: Store, writer: RunWriter) -> None:
    first, second = await accept(writer, concurrency_key="k"), await accept(writer, concurrency_key="k")
    other = await accept(writer, concurrency_key="other")

    assert await take(writer, first) is not None
    assert await take(writer, second) is None
    assert await take(writer, other) is not None
    assert (await row_of(store, second))["blocked_by"] == "its turn under the concurrency_key 'k'"


async def test_runs_with_one_key_start_in_the_order_of_their_acceptance(writer: RunWriter) -> None:
    first, second = await accept(writer, concurrency_key="k"), await accept(writer, concurrency_key="k")

    assert await take(writer, second) is None, "its message came first, but it was accepted second"
    claim = await taken(writer, first)
    await finish(writer, claim)
    assert await take(writer, second) is not None


async def test_a_key_may_have_several_places(store: Store, writer: RunWriter) -> None:
    await limit(store, key_concurrency=2)
    runs_of_key = [await accept(writer, concurrency_key="k") for _ in range(3)]

    claims = [await take(writer, run_id) for run_id in runs_of_key]

    assert [claim is not None for claim in claims] == [True, True, False]


async def test_a_run_in_a_pause_between_attempts_lets_others_pass(writer: RunWriter) -> None:
    first, second = await accept(writer, concurrency_key="k"), await accept(writer, concurrency_key="k")
    claim = await taken(writer, first)

    await writer.record(claim, Retry(after=LATER, reason="lost"), events=[], last_seq=claim.last_seq)

    assert await take(writer, second) is not None


async def test_a_cancelled_run_gives_its_turn_to_the_next(store: Store, writer: RunWriter) -> None:
    first, second = await accept(writer, concurrency_key="k"), await accept(writer, concurrency_key="k")
    await take(writer, second)

    async with store.write() as connection:
        await request_cancel(connection, first, "changed my mind")

    assert await calls(store) == [second]


async def test_a_lost_worker_gives_its_places_back(store: Store, writer: RunWriter) -> None:
    await limit(store, max_concurrency=1)
    first, second = await accept(writer, max_attempts=1), await accept(writer)
    await taken(writer, first)
    await take(writer, second)

    async with store.write() as connection:
        await lose_runs(connection, runs.c.owner == "worker-1", reason="it died", most=10)

    assert (await row_of(store, first))["status"] == "dead"
    assert await calls(store) == [second]


async def test_raised_limits_hold_at_once(store: Store, writer: RunWriter) -> None:
    await limit(store, max_concurrency=1)
    several = [await accept(writer) for _ in range(4)]
    for run_id in several:
        await take(writer, run_id)

    await limit(store, max_concurrency=3)

    assert await calls(store) == several[1:3]
    assert [await take(writer, run_id) is not None for run_id in several] == [False, True, True, False]


async def test_lifted_limits_let_the_whole_line_go(store: Store, writer: RunWriter) -> None:
    await limit(store, max_concurrency=1)
    several = [await accept(writer) for _ in range(4)]
    for run_id in several:
        await take(writer, run_id)

    await limit(store)

    assert await calls(store) == several[1:]
    assert [await take(writer, run_id) is not None for run_id in several] == [False, True, True, True]
    assert (await row_of(store, several[1]))["blocked_by"] is None


async def test_a_rate_limit_calls_the_next_run_when_its_window_opens(store: Store, writer: RunWriter) -> None:
    await limit(store, rate_limit=RateLimit(runs=2, per_seconds=600))
    several = [await accept(writer) for _ in range(4)]

    claims = [await take(writer, run_id) for run_id in several]

    assert [claim is not None for claim in claims] == [True, True, False, False]
    assert await calls(store) == several[2:3]
    assert (await row_of(store, several[2]))["blocked_by"] == "the app's rate limit (2 starts in 600 s)"
    assert await relay_due(store, MemoryQueue(), now=datetime.now(UTC) + timedelta(seconds=590)) == 0
    assert await relay_due(store, MemoryQueue(), now=datetime.now(UTC) + timedelta(seconds=610)) == 1


async def test_a_receipt_that_comes_late_leaves_a_call_in_the_outbox(store: Store, writer: RunWriter) -> None:
    first = await accept(writer, concurrency_key="k")
    second = await writer.accept(new_run(concurrency_key="k"))
    assert second.job is not None
    claim = await taken(writer, first)
    await take(writer, second.run_id)
    await finish(writer, claim)

    await writer.published([second.job])

    assert await calls(store) == [second.run_id]


async def test_the_reaper_calls_whom_nobody_called(store: Store, writer: RunWriter) -> None:
    await limit(store, max_concurrency=1)
    first, second = await accept(writer), await accept(writer)
    claim = await taken(writer, first)
    await take(writer, second)
    async with store.write() as connection:  # an end that knew nothing of the limit
        await connection.execute(update(runs).where(runs.c.id == claim.run_id).values(status="succeeded"))

    assert await call_waiting(store) == 1
    assert await call_waiting(store) == 0
    assert await calls(store) == [second]


async def test_runs_in_line_do_not_count_as_lost_messages(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    first = await accept(writer, concurrency_key="k")
    second = await writer.accept(new_run(concurrency_key="k"))
    assert second.job is not None
    await taken(writer, first)
    await take(writer, second.run_id)
    await writer.published([second.job])
    async with store.write() as connection:
        await connection.execute(update(runs).values(published_at=datetime.now(UTC) - LATER))

    assert await republish_vanished(store, queue) == 0


async def test_a_run_that_is_only_tracked_keeps_no_place(writer: RunWriter) -> None:
    await writer.accept(new_run(concurrency_key="k"), tracked_only=True)
    second = await accept(writer, concurrency_key="k")

    assert await take(writer, second) is not None


async def test_many_workers_together_never_exceed_the_limits(store: Store, database_url: str) -> None:
    await limit(store, max_concurrency=5, key_concurrency=2)
    stores = [await Store.open(database_url) for _ in range(4)]
    writers = [RunWriter(one) for one in stores]
    keys = [None, "a", "b", "c"]
    await asyncio.gather(*(accept(writers[n % 4], concurrency_key=keys[n % 4]) for n in range(60)))
    most = 0

    async def look() -> list[Any]:
        nonlocal most
        async with store.read() as connection:
            rows = (await connection.execute(select(runs.c.id, runs.c.status, runs.c.concurrency_key))).all()
        most = max(most, sum(row.status == "running" for row in rows))
        for key in ("a", "b", "c"):
            assert sum(row.status == "running" and row.concurrency_key == key for row in rows) <= 2
        return list(rows)

    async def work(mine: RunWriter) -> None:
        while True:
            rows = await look()
            queued = [row.id for row in rows if row.status == "queued"]
            if not queued and all(row.status != "running" for row in rows):
                return
            claims = await asyncio.gather(*(take(mine, run_id) for run_id in queued))
            await look()
            await asyncio.gather(*(finish(mine, claim) for claim in claims if claim is not None))

    try:
        await asyncio.gather(*(work(mine) for mine in writers))
    finally:
        for one in stores:
            await one.aclose()

    assert 1 <= most <= 5


ACTIONS = ("accept", "accept", "deliver", "deliver", "deliver", "finish", "retry", "lose", "cancel", "relay", "mend")


class World:
    """An app with limits, its messages, and a worker that does what it is told."""

    def __init__(self, store: Store, limits: AppLimits) -> None:
        self.store, self.limits = store, limits
        self.writer = RunWriter(store)
        self.queue = MemoryQueue()
        self.messages: list[str] = []
        self.claims: list[Claim] = []

    async def do(self, action: str, number: int) -> None:
        await getattr(self, f"_{action}")(number)
        await self.check()

    async def check(self) -> None:
        running = [row for row in await self._rows() if row.status == "running"]
        assert len(running) <= (self.limits.max_concurrency or 1000)
        for key in {row.concurrency_key for row in running} - {None}:
            assert sum(row.concurrency_key == key for row in running) <= self.limits.key_concurrency

    async def run_dry(self) -> None:
        """Deliver and finish until nothing is left; nothing but messages may be needed for it."""
        for _ in range(1000):
            if all(row.status not in ("queued", "running") for row in await self._rows()):
                return
            await self._relay(0)
            while self.messages:
                await self._deliver(0)
                await self.check()
            await self._finish(0)
        raise AssertionError("some run never ran")

    async def _accept(self, number: int) -> None:
        key = (None, "a", "b")[number % 3]
        await accept(self.writer, concurrency_key=key, priority=(5, 5, 0)[number // 3 % 3], max_attempts=2)

    async def _deliver(self, number: int) -> None:
        if not self.messages:
            return
        run_id = self.messages.pop(number % len(self.messages))
        before = {row.id: row for row in await self._rows()}
        if (claim := await take(self.writer, run_id)) is not None:
            self.claims.append(claim)
            mine, now = before[run_id], datetime.now(UTC)
            earlier = [
                row.id
                for row in before.values()
                if mine.concurrency_key is not None
                and (row.status, row.concurrency_key) == ("queued", mine.concurrency_key)
                and (row.run_at is None or row.run_at <= now)
                and (row.priority, row.created_at, row.id) < (mine.priority, mine.created_at, mine.id)
            ]
            busy = sum(
                row.status == "running" and row.concurrency_key == mine.concurrency_key for row in before.values()
            )
            assert len(earlier) < max(1, self.limits.key_concurrency - busy), "it started before its turn"

    async def _finish(self, number: int) -> None:
        await self._end(number, lambda claim: finish(self.writer, claim))

    async def _retry(self, number: int) -> None:
        again = Retry(after=timedelta(0), reason="lost")
        await self._end(number, lambda claim: self.writer.record(claim, again, events=[], last_seq=claim.last_seq))

    async def _lose(self, number: int) -> None:
        async def lose(claim: Claim) -> None:
            async with self.store.write() as connection:
                await lose_runs(connection, runs.c.id == claim.run_id, reason="it died", most=1)

        await self._end(number, lose)

    async def _cancel(self, number: int) -> None:
        queued = [row.id for row in await self._rows() if row.status == "queued"]
        if queued:
            async with self.store.write() as connection:
                await request_cancel(connection, queued[number % len(queued)], "enough")

    async def _relay(self, number: int) -> None:
        await relay_due(self.store, self.queue, now=datetime.now(UTC) + LATER)
        while await self.queue.depth("flow"):
            self.messages.append((await self.queue.take("flow")).run_id)

    async def _mend(self, number: int) -> None:
        assert await call_waiting(self.store) == 0, "an end forgot to call the next"

    async def _end(self, number: int, how: Callable[[Claim], Awaitable[Any]]) -> None:
        if self.claims:
            with suppress(LostClaim):
                await how(self.claims.pop(number % len(self.claims)))

    async def _rows(self) -> list[Any]:
        columns = (
            runs.c.id,
            runs.c.status,
            runs.c.concurrency_key,
            runs.c.priority,
            runs.c.created_at,
            runs.c.run_at,
        )
        async with self.store.read() as connection:
            return list((await connection.execute(select(*columns))).all())


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1000)), min_size=10, max_size=60),
    places=st.sampled_from([None, 1, 2, 3]),
    key_places=st.sampled_from([1, 2]),
)
def test_any_interleaving_keeps_the_limits_and_runs_everything(
    sqlite_template: Path, steps: list[tuple[str, int]], places: int | None, key_places: int
) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(sqlite_template, Path(folder) / "flo.db")
            store = await Store.open(f"sqlite:///{folder}/flo.db")
            try:
                limits = AppLimits(max_concurrency=places, key_concurrency=key_places)
                await limit(store, **limits.model_dump())
                world = World(store, limits)
                for action, number in steps:
                    await world.do(action, number)
                await world.run_dry()
            finally:
                await store.aclose()

    asyncio.run(play())
