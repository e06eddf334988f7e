from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from dispatch.leases import Leadership, WorkerIdentity, WorkerLease, workers
from dispatch.outbox import RELAY_BATCH, RELAY_LEASE, Publisher, relay_due
from dispatch.queues.memory import MemoryQueue
from dispatch.store.release import request_cancel
from dispatch.store.runs import insert_runs, list_attempts, read_run, runs
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from scheduler.reaper import reap_lost, republish_vanished
from scheduler.relay import relay
from schemas.errors import Unavailable
from schemas.job import Job
from schemas.outcome import Retry
from tests.making import new_run

LEASE = timedelta(seconds=10)
LATER = timedelta(minutes=1)


@pytest.fixture
def writer(store: Store) -> RunWriter:
    return RunWriter(store)


@pytest.fixture
async def worker(store: Store) -> WorkerLease:
    lease = WorkerLease(store, WorkerIdentity(id="worker-1", hostname="w@here", lanes=("flow",), concurrency=1))
    await lease.begin()
    return lease


async def silence(store: Store, worker: str) -> None:
    """Play a worker that was killed a minute ago."""
    async with store.write() as connection:
        await connection.execute(
            update(workers).where(workers.c.id == worker).values(heartbeat_at=datetime.now(UTC) - LATER)
        )


async def published_long_ago(store: Store) -> None:
    async with store.write() as connection:
        await connection.execute(update(runs).values(published_at=datetime.now(UTC) - LATER))


async def row_of(store: Store, run_id: str):
    async with store.read() as connection:
        row = await read_run(connection, run_id)
    assert row is not None
    return row


async def test_the_relay_sends_what_the_acceptor_left_behind(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    accepted = await writer.accept(new_run())

    early = await relay_due(store, queue)
    late = await relay_due(store, queue, now=datetime.now(UTC) + LATER)
    again = await relay_due(store, queue, now=datetime.now(UTC) + LATER)

    assert (early, late, again) == (0, 1, 0)
    assert (await queue.take("flow")).run_id == accepted.run_id


async def test_the_relay_keeps_everything_while_the_broker_is_away(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    await writer.accept(new_run(run_at=datetime.now(UTC) - LATER))
    async with store.write() as connection:
        await connection.execute(update(runs).values(run_at=None))
    queue.available = False

    with pytest.raises(Unavailable):
        await relay_due(store, queue, now=datetime.now(UTC) + LATER)
    queue.available = True

    assert await relay_due(store, queue, now=datetime.now(UTC) + LATER) == 1


async def test_what_the_publisher_could_not_send_is_left_to_the_relay(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    queue.available = False
    publisher = Publisher(queue, writer)
    accepted = await writer.accept(new_run())
    assert accepted.job is not None

    publisher.publish_soon([accepted.job])
    await publisher.settle()
    queue.available = True

    assert await relay_due(store, queue, now=datetime.now(UTC) + LATER) == 1


async def test_a_published_job_is_not_sent_again(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    publisher = Publisher(queue, writer)
    accepted = await writer.accept(new_run())
    assert accepted.job is not None

    publisher.publish_soon([accepted.job])
    await publisher.settle()

    assert await relay_due(store, queue, now=datetime.now(UTC) + LATER) == 0
    assert await queue.depth("flow") == 1


async def test_the_relay_goes_on_until_nothing_is_due(store: Store) -> None:
    queue = MemoryQueue()
    async with store.write() as connection:
        await insert_runs(connection, [new_run() for _ in range(RELAY_BATCH + 1)])

    assert await relay(store, queue, now=datetime.now(UTC) + LATER) == RELAY_BATCH + 1


async def test_a_dead_workers_run_is_queued_again(store: Store, writer: RunWriter, worker: WorkerLease) -> None:
    accepted = await writer.accept(new_run())
    await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    await silence(store, "worker-1")

    reaped = await reap_lost(store, lease=LEASE)

    row = await row_of(store, accepted.run_id)
    async with store.read() as connection:
        tries = await list_attempts(connection, accepted.run_id)
    assert (reaped, row["status"], row["owner"]) == (1, "queued", None)
    assert tries[0]["outcome"] == "lost"
    assert await relay_due(store, MemoryQueue()) == 1


async def test_a_live_workers_run_is_left_alone(store: Store, writer: RunWriter, worker: WorkerLease) -> None:
    accepted = await writer.accept(new_run())
    await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    await worker.beat()

    assert await reap_lost(store, lease=LEASE) == 0


async def test_a_worker_that_ended_gives_its_runs_up_at_once(
    store: Store, writer: RunWriter, worker: WorkerLease
) -> None:
    accepted = await writer.accept(new_run())
    await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    await worker.end()

    assert await reap_lost(store, lease=LEASE) == 1


async def test_a_run_that_kills_its_worker_each_time_is_dead_lettered(
    store: Store, writer: RunWriter, worker: WorkerLease
) -> None:
    accepted = await writer.accept(new_run(max_attempts=2))
    await silence(store, "worker-1")

    await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    await reap_lost(store, lease=LEASE)
    await writer.take(accepted.run_id, owner="worker-1", executor="inline", alone=True)
    await reap_lost(store, lease=LEASE)

    row = await row_of(store, accepted.run_id)
    assert (row["status"], row["attempt"]) == ("dead", 2)
    assert "given up after 2 attempts; the last: its worker stopped beating" in row["error"]["message"]


async def test_a_lost_run_that_was_to_be_cancelled_is_cancelled(
    store: Store, writer: RunWriter, worker: WorkerLease
) -> None:
    accepted = await writer.accept(new_run())
    await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    async with store.write() as connection:
        await request_cancel(connection, accepted.run_id, "enough")
    await silence(store, "worker-1")

    await reap_lost(store, lease=LEASE)

    assert (await row_of(store, accepted.run_id))["status"] == "cancelled"


async def test_queued_runs_whose_messages_are_gone_are_published_again(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    publisher = Publisher(queue, writer)
    accepted = [await writer.accept(new_run()) for _ in range(5)]
    publisher.publish_soon([one.job for one in accepted if one.job])
    await publisher.settle()
    await published_long_ago(store)

    queue.wipe()
    vanished = await republish_vanished(store, queue)

    assert vanished == 5
    assert await relay_due(store, queue) == 5


async def test_a_long_backlog_is_not_published_twice(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    publisher = Publisher(queue, writer)
    accepted = [await writer.accept(new_run()) for _ in range(5)]
    publisher.publish_soon([one.job for one in accepted if one.job])
    await publisher.settle()
    await published_long_ago(store)

    assert await republish_vanished(store, queue) == 0


async def test_one_replica_at_a_time_holds_a_duty(store: Store) -> None:
    one = Leadership(store, holder="one", lasts=LEASE)
    two = Leadership(store, holder="two", lasts=LEASE)

    assert [await one.hold("tick"), await two.hold("tick"), await one.hold("tick")] == [True, False, True]


async def test_a_duty_passes_on_when_its_holder_lets_go(store: Store) -> None:
    one = Leadership(store, holder="one", lasts=LEASE)
    two = Leadership(store, holder="two", lasts=LEASE)
    await one.hold("tick")

    await one.release(["tick"])

    assert await two.hold("tick")


async def test_two_relays_side_by_side_publish_nothing_twice(
    store: Store, writer: RunWriter, database_url: str
) -> None:
    other = await Store.open(database_url)
    queue = MemoryQueue()
    async with store.write() as connection:
        await insert_runs(connection, [new_run() for _ in range(2 * RELAY_BATCH + 50)])
    soon = datetime.now(UTC) + timedelta(seconds=5)

    try:
        sent = await asyncio.gather(relay(store, queue, now=soon), relay(other, queue, now=soon))
    finally:
        await other.aclose()

    assert await queue.depth("flow") == sum(sent) == 2 * RELAY_BATCH + 50


async def test_a_batch_whose_relay_died_is_sent_later(store: Store, writer: RunWriter) -> None:
    queue = DyingQueue()
    await writer.accept(new_run())
    soon = datetime.now(UTC) + timedelta(seconds=5)
    with pytest.raises(Death):
        await relay_due(store, queue, now=soon)

    at_once = await relay_due(store, MemoryQueue(), now=soon)
    later = await relay_due(store, MemoryQueue(), now=soon + RELAY_LEASE)

    assert (at_once, later) == (0, 1)


async def test_a_broker_that_was_away_gets_its_jobs_as_soon_as_it_is_back(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    await writer.accept(new_run())
    soon = datetime.now(UTC) + timedelta(seconds=5)
    queue.available = False
    with pytest.raises(Unavailable):
        await relay_due(store, queue, now=soon)
    queue.available = True

    assert await relay_due(store, queue, now=soon) == 1


async def test_a_run_in_a_pause_is_not_taken_for_one_whose_message_is_gone(store: Store, writer: RunWriter) -> None:
    queue = MemoryQueue()
    paused, waiting = [await writer.accept(new_run()) for _ in range(2)]
    assert paused.job is not None and waiting.job is not None
    await queue.publish([waiting.job])
    await writer.published([paused.job, waiting.job])
    claim = await writer.take(paused.run_id, owner="worker-1", executor="inline")
    assert claim is not None
    await writer.record(claim, Retry(after=LATER, reason="lost"), events=[], last_seq=claim.last_seq)
    await published_long_ago(store)

    assert await republish_vanished(store, queue) == 0


async def test_two_reapers_side_by_side_take_each_run_once(store: Store, writer: RunWriter, database_url: str) -> None:
    other = await Store.open(database_url)
    for _ in range(30):
        accepted = await writer.accept(new_run())
        await writer.take(accepted.run_id, owner="nobody", executor="inline")

    try:
        reaped = await asyncio.gather(reap_lost(store, lease=LEASE), reap_lost(other, lease=LEASE))
    finally:
        await other.aclose()

    assert sum(reaped) == 30
    assert await relay_due(store, MemoryQueue()) == 30


class Death(BaseException):
    """The process ends here."""


class DyingQueue(MemoryQueue):
    """A queue under which its process dies."""

    async def publish(self, jobs: Sequence[Job]) -> None:
        raise Death
