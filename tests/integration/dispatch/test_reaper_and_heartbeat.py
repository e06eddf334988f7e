"""The reaper and a heartbeat that meet: a worker never hears that it owns what is being taken from it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, select, text, update

from dispatch.leases import Owned, WorkerIdentity, WorkerLease, silent_owners, workers
from dispatch.store.release import lose_runs
from dispatch.store.runs import runs
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from scheduler.reaper import reap_lost
from schemas.errors import NotFound
from tests.making import new_run

LEASE = timedelta(seconds=10)


@pytest.fixture
async def row(store: Store) -> WorkerLease:
    """A worker that owns one run, and has not beaten for a minute."""
    lease = WorkerLease(store, WorkerIdentity(id="worker-1", hostname="w@here", lanes=("flow",), concurrency=1))
    await lease.begin()
    writer = RunWriter(store)
    accepted = await writer.accept(new_run())
    await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    async with store.write() as connection:
        await connection.execute(update(workers).values(heartbeat_at=datetime.now(UTC) - timedelta(minutes=1)))
    return lease


async def statuses(store: Store) -> list[str]:
    async with store.read() as connection:
        return list(await connection.scalars(select(runs.c.status)))


async def test_a_heartbeat_that_meets_the_reaper_waits_and_hears_what_was_taken(store: Store, row: WorkerLease) -> None:
    async with store.write() as reaping:
        silent = await silent_owners(reaping, lease=LEASE)
        beating = asyncio.create_task(row.beat())
        await reached_the_row(store, beating)
        await lose_runs(reaping, runs.c.owner.in_(silent), reason="silent", most=10)

    assert await beating == []
    assert await statuses(store) == ["queued"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # SQLite's only writer is never met
async def test_a_worker_that_is_beating_at_this_moment_is_not_dead(store: Store, row: WorkerLease) -> None:
    async with store.write() as beating:
        await beating.execute(update(workers).values(heartbeat_at=datetime.now(UTC)))

        assert await reap_lost(store, lease=LEASE) == 0
    assert await statuses(store) == ["running"]


async def test_the_runs_of_a_worker_without_a_row_are_taken(store: Store, row: WorkerLease) -> None:
    async with store.write() as connection:
        await connection.execute(delete(workers))

    assert await reap_lost(store, lease=LEASE) == 1


async def test_a_worker_without_a_row_hears_that_it_has_none(store: Store, row: WorkerLease) -> None:
    async with store.write() as connection:
        await connection.execute(delete(workers))

    with pytest.raises(NotFound, match="start it again"):
        await row.beat()


async def reached_the_row(store: Store, beating: asyncio.Task[list[Owned]]) -> None:
    """Return when the heartbeat waits for the reaper: on SQLite it can't have begun, on Postgres it waits."""
    while not (store.sqlite or await is_blocked(store)):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert not beating.done()


async def is_blocked(store: Store) -> bool:
    async with store.read() as connection:  # one each time: within a transaction, statistics stay as they are
        return bool(await connection.scalar(_BLOCKED))


_BLOCKED = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
