"""What has been kept long enough goes, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from dispatch.store.dead_messages import DeadMessage, dead_messages, keep_message
from dispatch.store.runs import attempts, outbox, run_events, runs
from dispatch.store.session import Store
from dispatch.store.triggers import Delivery, deliveries, insert_delivery
from dispatch.store.writer import RunWriter
from scheduler.retention import Pruner
from schemas.ids import first_id
from schemas.outcome import Outcome, Retry, Succeeded
from schemas.settings import load_settings
from tests.making import new_run

NOW = datetime.now(UTC)
LOST = Retry(after=timedelta(0), reason="lost")


@pytest.fixture
def writer(store: Store) -> RunWriter:
    return RunWriter(store)


async def run_of(
    writer: RunWriter, store: Store, *, days_ago: float, number: int = 0, outcome: Outcome | None = None
) -> str:
    """Make a run that was accepted, and ended, so many days ago."""
    then = NOW - timedelta(days=days_ago)
    run_id = first_id("run", then)[:-6] + f"{number:06d}"
    await writer.accept(new_run(id=run_id, max_attempts=1, idempotency_key=run_id))
    if outcome is not None:
        claim = await writer.take(run_id, owner="worker-1", executor="inline")
        assert claim is not None
        await writer.record(claim, outcome, events=[], last_seq=claim.last_seq)
        async with store.write() as connection:
            await connection.execute(update(runs).where(runs.c.id == run_id).values(finished_at=then))
    return run_id


async def prune(store: Store, **variables: str) -> None:
    """Prune until there is nothing more to do."""
    pruner = Pruner(store, load_settings(variables))
    while await pruner.prune() < timedelta(minutes=1):
        pass


async def ids_of(store: Store) -> list[str]:
    async with store.read() as connection:
        return list((await connection.execute(select(runs.c.id).order_by(runs.c.id))).scalars())


async def rows_of(store: Store, table: Any) -> int:
    async with store.read() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def test_a_run_goes_after_thirty_days_with_all_that_is_its(store: Store, writer: RunWriter) -> None:
    await run_of(writer, store, days_ago=31, outcome=Succeeded(result=1))

    await prune(store)

    assert [await rows_of(store, table) for table in (runs, run_events, attempts, outbox)] == [0, 0, 0, 0]


async def test_younger_runs_and_those_that_are_not_over_stay(store: Store, writer: RunWriter) -> None:
    young = await run_of(writer, store, days_ago=29, outcome=Succeeded(result=1))
    queued = await run_of(writer, store, days_ago=400)
    running = await run_of(writer, store, days_ago=500)
    await writer.take(running, owner="worker-1", executor="inline")

    await prune(store)

    assert await ids_of(store) == [running, queued, young]


async def test_a_run_that_ended_late_is_kept_from_its_end_on(store: Store, writer: RunWriter) -> None:
    late = await run_of(writer, store, days_ago=100, outcome=Succeeded(result=1))
    async with store.write() as connection:
        await connection.execute(update(runs).values(finished_at=NOW - timedelta(days=1)))

    await prune(store)

    assert await ids_of(store) == [late]


async def test_dead_letters_are_kept_longer(store: Store, writer: RunWriter) -> None:
    kept = await run_of(writer, store, days_ago=60, outcome=LOST)
    await run_of(writer, store, days_ago=100, outcome=LOST)

    await prune(store)

    assert await ids_of(store) == [kept]


async def test_nothing_goes_when_it_is_to_be_kept_for_ever(store: Store, writer: RunWriter) -> None:
    await run_of(writer, store, days_ago=1000, outcome=Succeeded(result=1))
    await run_of(writer, store, days_ago=1001, outcome=LOST)

    await prune(store, FLO_RETENTION_DAYS="0", FLO_DEAD_LETTER_DAYS="0")

    assert await rows_of(store, runs) == 2


async def test_more_than_a_batch_goes_in_several(store: Store, writer: RunWriter) -> None:
    done = Succeeded(result=1)
    for number in range(5):
        await run_of(writer, store, days_ago=40, number=number, outcome=done)
    async with store.write() as connection:
        copies = select(runs).where(runs.c.id < "run_1").limit(1)
        row = (await connection.execute(copies)).mappings().one()
        more = [{**row, "id": f"{row['id'][:-6]}{number:06d}", "idempotency_key": None} for number in range(10, 510)]
        await connection.execute(runs.insert(), more)

    await prune(store)

    assert await rows_of(store, runs) == 0


async def test_old_deliveries_and_unreadable_messages_go_too(store: Store) -> None:
    old = NOW - timedelta(days=100)
    async with store.write() as connection:
        for number, moment in enumerate((old, NOW)):
            delivery = Delivery(
                id=f"dlv_{number}", app="shop", path="p", method="POST", headers={}, body=b"", received_at=moment,
                dedupe_key=None,
            )  # fmt: skip
            await insert_delivery(connection, delivery)
            await keep_message(
                connection, DeadMessage(carrier="redis", lane="flow", body=bytes([number]), reason="not a job")
            )
        await connection.execute(update(dead_messages).where(dead_messages.c.body == b"\0").values(received_at=old))

    await prune(store)

    assert [await rows_of(store, table) for table in (deliveries, dead_messages)] == [1, 1]
