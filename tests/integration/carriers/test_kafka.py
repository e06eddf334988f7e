"""What is Kafka's own: partitions, restarts, poison."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from dispatch.queues.redis_queue import envelope
from dispatch.store.runs import list_attempts
from scheduler.reaper import reap_lost
from scheduler.relay import relay
from schemas.job import Job, JobKind
from schemas.run import EventType
from tests import servers
from tests.carriers import environment, kafka_environment
from tests.integration.carriers.carried import SHORT, Carrier, dead_bodies, open_carried, until
from tests.integration.workers.worker_process import PATIENCE, Lane, WorkerProcess

#: One app's runs go to all partitions.
SPREAD = {"KAFKA_MESSAGE_KEY": "run"}


@pytest.fixture
def carrier(request: pytest.FixtureRequest, home: Path, database_url: str) -> Carrier:
    return Carrier(home, database_url, environment(request, "kafka"))


async def members(carrier: Carrier) -> int:
    """Count the members of a group that is not rebalancing."""
    admin = AIOKafkaAdminClient(bootstrap_servers=carrier.settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        [answer] = await admin.describe_consumer_groups([carrier.settings.kafka_consumer_group])
    except GroupCoordinatorNotAvailableError:
        return 0
    finally:
        await admin.close()
    [group] = answer.groups
    return len(group[5]) if group[2] == "Stable" else 0


async def worker_of(lane: Lane, run_id: str) -> str:
    async with lane.store.read() as connection:
        [attempt] = await list_attempts(connection, run_id)
    return str(attempt["worker"])


async def test_an_unreadable_message_stops_nothing_and_is_kept_with_its_reason(
    carrier: Carrier, lane: Lane, worker: WorkerProcess
) -> None:
    await lane.ended(await lane.send())
    good = envelope(Job(kind=JobKind.FLOW, run_id="run_x", app="shop"))
    forged = [
        b"\x80\x04not json",
        good.replace("run_id", "ran_id").encode(),
        good.replace("flo.flow", "flo.x").encode(),
    ]
    topic = f"{carrier.settings.kafka_topic_prefix}flow"
    async with AIOKafkaProducer(bootstrap_servers=carrier.settings.kafka_bootstrap_servers) as producer:
        for value in forged:
            await producer.send_and_wait(topic, value, key=b"shop")

    run = await lane.ended(await lane.send())

    dead = AIOKafkaConsumer(
        f"{topic}.dead",
        bootstrap_servers=carrier.settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        group_id=None,
    )
    async with dead, asyncio.timeout(PATIENCE):
        kept = [await dead.getone() for _ in forged]
    assert run["status"] == "succeeded"
    assert worker.process.poll() is None
    assert {record.value for record in kept} == set(forged)

    async def all_are_in_sql() -> bool:
        return await dead_bodies(lane) == set(forged)

    await until(all_are_in_sql)
    assert {dict(record.headers)["topic"] for record in kept} == {topic.encode()}
    assert all(dict(record.headers)["reason"] for record in kept)


async def test_a_restarted_broker_is_worked_on_again(home: Path, database_url: str) -> None:
    with servers.run_kafka() as broker:
        carrier = Carrier(home, database_url, kafka_environment(broker.bootstrap))
        async with open_carried(carrier) as lane:
            with carrier.worker() as worker:
                before = await lane.ended(await lane.send())

                broker.stop()
                meanwhile = await lane.send()
                await lane.publisher.settle()
                await asyncio.to_thread(broker.start)
                after = await lane.send()
                await lane.publisher.settle()
                await relay(lane.store, lane.queue)

                runs = [await lane.ended(run_id) for run_id in (meanwhile, after)]
                assert worker.process.poll() is None
    assert [run["status"] for run in (before, *runs)] == ["succeeded"] * 3


async def test_two_workers_share_the_partitions_and_one_takes_over_from_a_killed_one(carrier: Carrier) -> None:
    carrier.environment.update(SPREAD)

    async def both_are_in() -> bool:
        return await members(carrier) == 2

    async with open_carried(carrier, SHORT) as lane:
        with carrier.worker() as first, carrier.worker() as second:
            await until(both_are_in)
            shared = [await lane.ended(run_id) for run_id in [await lane.send() for _ in range(60)]]
            shares = {await worker_of(lane, run["id"]) for run in shared}
            caught = [await lane.send() for _ in range(20)]
            await asyncio.gather(*(lane.seen(run_id, EventType.NODE_STARTED) for run_id in caught))
            first.signal(signal.SIGKILL)
            await asyncio.to_thread(first.ended)
            orphaned = [await lane.send() for _ in range(40)]
            taken_over = [await lane.ended(run_id) for run_id in orphaned]
            await reap_lost(lane.store, lease=timedelta(seconds=2))
            await relay(lane.store, lane.queue)
            caught_up = [await lane.ended(run_id) for run_id in caught]
            assert second.process.poll() is None

    assert len(shares) == 2
    assert {run["status"] for run in (*shared, *taken_over, *caught_up)} == {"succeeded"}


async def test_a_long_run_delays_neither_commits_nor_heartbeats(carrier: Carrier) -> None:
    long = {"name": "long", "nodes": [{"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 8_000}}]}

    async def nothing_waits() -> bool:
        return await lane.queue.depth("flow") == 0

    async with open_carried(carrier, long) as lane:
        # One slot, and a session of six seconds: a member that fell silent would be put out in the meantime.
        with carrier.worker("--concurrency", "1") as worker:
            run_id = await lane.send()
            await lane.seen(run_id, EventType.NODE_STARTED)
            await until(nothing_waits)
            committed_while_running = worker.process.poll() is None
            run = await lane.ended(run_id)

            assert await members(carrier) == 1
    assert committed_while_running
    assert (run["status"], run["attempt"]) == ("succeeded", 1)
    assert worker.log.read_text().count("kafka.assigned") == 1
