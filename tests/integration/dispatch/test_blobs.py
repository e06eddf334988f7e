"""Large values are kept once, beside the rows, and nobody notices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from dispatch.bell import LocalBell
from dispatch.claims import Claim
from dispatch.feed import Feed
from dispatch.store.blobs import blobs, run_blobs
from dispatch.store.history import read_histories
from dispatch.store.retention import Retention, prune_runs
from dispatch.store.runs import list_runs, read_run, runs
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.ids import first_id
from schemas.outcome import Succeeded
from schemas.run import EventType, Happening, RunEvent
from tests.making import new_run

#: Longer than the threshold of these tests, and not to be compressed away.
LARGE = {"text": "grüße " * 500}
SMALL = {"text": "hello"}


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(database_url, blob_threshold=1024)
    yield opened
    await opened.aclose()


@pytest.fixture
def writer(store: Store) -> RunWriter:
    return RunWriter(store)


async def run_to_its_end(writer: RunWriter, value: Any, **changes: Any) -> Claim:
    """Make a run whose payload, output and result are this value."""
    accepted = await writer.accept(new_run(payload=value, **changes))
    claim = await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    assert claim is not None
    output = Happening(EventType.NODE_COMPLETED, {"outputs": value, "attempt": 1, "duration_ms": 1}, "say")
    event = RunEvent(claim.run_id, claim.last_seq + 1, output)
    await writer.record(claim, Succeeded(result=value), events=[event], last_seq=event.seq)
    return claim


async def count(store: Store, table: Any) -> int:
    async with store.read() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def test_a_large_value_comes_back_wherever_it_is_read(store: Store, writer: RunWriter) -> None:
    claim = await run_to_its_end(writer, LARGE)

    async with store.read() as connection:
        row = await read_run(connection, claim.run_id)
        listed, _ = await list_runs(connection)
        histories = await read_histories(connection, [claim.run_id])
    events = await Feed(store, LocalBell()).read(claim.run_id)

    assert row is not None
    assert (claim.payload, row["payload"], row["result"]) == (LARGE, LARGE, LARGE)
    assert listed[0]["result"] == LARGE
    assert histories[claim.run_id][0].data["outputs"] == LARGE
    assert [event.happening.data.get("outputs") for event in events] == [None, LARGE, None]
    assert events[-1].happening.data["result"] == LARGE


async def test_the_rows_hold_no_large_value(store: Store, writer: RunWriter) -> None:
    await run_to_its_end(writer, LARGE)

    async with store.read() as connection:
        rows = [*await connection.execute(text("SELECT payload, result FROM runs"))]
        rows += [*await connection.execute(text("SELECT data, type FROM run_events"))]

    assert max(len(value) for row in rows for value in row) < 1024


async def test_the_same_value_is_kept_once_per_app(store: Store, writer: RunWriter) -> None:
    for app in ("shop", "shop", "bank"):
        await writer.accept(new_run(payload=LARGE, app=app))

    assert await count(store, blobs) == 2
    assert await count(store, run_blobs) == 3


async def test_a_small_value_stays_in_its_row(store: Store, writer: RunWriter) -> None:
    await run_to_its_end(writer, SMALL)

    assert await count(store, blobs) == 0


async def test_a_value_that_looks_like_a_reference_is_only_a_value(store: Store, writer: RunWriter) -> None:
    accepted = await writer.accept(new_run(payload="@" + "0" * 64))

    async with store.read() as connection:
        row = await read_run(connection, accepted.run_id)

    assert row is not None and row["payload"] == "@" + "0" * 64


async def test_a_value_goes_with_the_last_run_that_has_it(store: Store, writer: RunWriter) -> None:
    now = datetime.now(UTC)
    old = [first_id("run", now - timedelta(days=days)) for days in (50, 40)]
    for run_id in old:
        await run_to_its_end(writer, LARGE, id=run_id)
    await long_ago(store, old[0], now - timedelta(days=50))
    await long_ago(store, old[1], now - timedelta(days=40))
    before = await count(store, blobs)

    await prune(store, before=now - timedelta(days=45))
    with_one_run = await count(store, blobs)
    await prune(store, before=now - timedelta(days=30))

    assert (before, with_one_run) == (3, 3), "the payload and result, the node's end, the run's end"
    assert (await count(store, blobs), await count(store, run_blobs)) == (0, 0)


async def test_a_value_that_a_younger_run_is_about_to_have_stays(store: Store, writer: RunWriter) -> None:
    now = datetime.now(UTC)
    old = first_id("run", now - timedelta(days=50))
    await run_to_its_end(writer, LARGE, id=old)
    async with store.write() as connection:
        await connection.execute(update(runs).values(finished_at=now - timedelta(days=50)))

    await prune(store, before=now - timedelta(days=30))  # its values were touched a moment ago

    assert await count(store, blobs) == 3


async def long_ago(store: Store, run_id: str, then: datetime) -> None:
    async with store.write() as connection:
        await connection.execute(update(runs).where(runs.c.id == run_id).values(finished_at=then))
        await connection.execute(update(blobs).values(touched_at=then))


async def prune(store: Store, *, before: datetime) -> None:
    keep = Retention(runs=before, dead_letters=None)
    await store.transact(lambda connection: prune_runs(connection, keep, after="", most=100))
