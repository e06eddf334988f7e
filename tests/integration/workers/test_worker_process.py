from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from dispatch.queues.redis_queue import envelope
from dispatch.store.release import request_cancel
from schemas.job import Job, JobKind
from schemas.run import EventType
from schemas.run import Lane as LaneName
from tests import servers
from tests.integration.carriers.carried import dead_bodies, until
from tests.integration.workers.worker_process import Lane, WorkerProcess, open_lane
from tests.processes import children_of

WAITING = {
    "name": "waiting",
    "nodes": [{"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 600}}],
}
LONG = {"name": "long", "nodes": [{"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 30_000}}]}


@pytest.fixture
async def lane(database_url: str, redis_url: str) -> AsyncIterator[Lane]:
    async with open_lane(database_url, redis_url) as opened:
        yield opened


@pytest.fixture
def worker(home: Path, database_url: str, redis_url: str) -> Iterator[WorkerProcess]:
    with WorkerProcess(home, database_url, redis_url) as process:
        yield process


@pytest.mark.parametrize("name", list(LaneName))
async def test_a_job_of_each_lane_is_executed(lane: Lane, worker: WorkerProcess, name: LaneName) -> None:
    run = await lane.ended(await lane.send(lane=name))

    assert (run["status"], run["result"], run["lane"]) == ("succeeded", {"message": "hello"}, str(name))


async def test_a_backlog_of_all_priorities_is_worked_off(lane: Lane, worker: WorkerProcess) -> None:
    ids = [await lane.send(priority=number % 10) for number in range(300)]

    runs = [await lane.ended(run_id) for run_id in ids]

    assert {run["status"] for run in runs} == {"succeeded"}
    assert {run["attempt"] for run in runs} == {1}


async def test_a_worker_group_takes_its_own_lane_only(
    lane: Lane, home: Path, database_url: str, redis_url: str
) -> None:
    with WorkerProcess(home, database_url, redis_url, "--group", "gpu", "--lanes", "flow"):
        plain = await lane.send()
        grouped = await lane.ended(await lane.send(worker_group="gpu"))

    assert grouped["status"] == "succeeded"
    assert await lane.queue.depth("flow") == 1, plain


async def test_an_unreadable_message_stops_nothing_and_is_kept(
    lane: Lane, worker: WorkerProcess, redis_url: str
) -> None:
    job = Job(kind=JobKind.FLOW, run_id="run_x", app="shop")
    good = envelope(job)
    forged = [
        good.replace("run_id", "ran_id"),
        good.replace('"flo.flow"', '"flo.webhook"'),
        '{"neither": "of Celery"}',
        b"\xff\xfe nor JSON",
    ]
    with redis.Redis.from_url(redis_url) as broker:
        broker.lpush("flow", *forged)

    run = await lane.ended(await lane.send())

    async def all_are_kept() -> bool:
        return len(await dead_bodies(lane)) == len(forged)

    await until(all_are_kept)
    assert run["status"] == "succeeded"
    assert worker.process.poll() is None


async def test_a_running_run_is_cancelled_at_once(home: Path, database_url: str, redis_url: str) -> None:
    async with open_lane(database_url, redis_url, LONG) as lane:
        with WorkerProcess(home, database_url, redis_url):
            run_id = await lane.send()
            await lane.seen(run_id, EventType.NODE_STARTED)
            async with lane.store.write() as connection:
                await request_cancel(connection, run_id, "changed my mind")

            lane.cancel(run_id)

            run = await lane.ended(run_id)
    assert run["status"] == "cancelled"


async def test_sigterm_lets_the_runs_finish(home: Path, database_url: str, redis_url: str) -> None:
    async with open_lane(database_url, redis_url, WAITING) as lane:
        with WorkerProcess(home, database_url, redis_url) as worker:
            ids = [await lane.send() for _ in range(10)]
            await asyncio.gather(*(lane.seen(run_id, EventType.NODE_STARTED) for run_id in ids))

            worker.signal(signal.SIGTERM)

            runs = [await lane.ended(run_id) for run_id in ids]
            code = await asyncio.to_thread(worker.ended)
    assert {(run["status"], run["attempt"]) for run in runs} == {("succeeded", 1)}
    assert code == 0


async def test_flower_hears_of_runs_that_end_during_a_drain(home: Path, database_url: str, redis_url: str) -> None:
    async with open_lane(database_url, redis_url, WAITING) as lane:
        with WorkerProcess(home, database_url, redis_url) as worker, worker_events(redis_url) as events:
            run_id = await lane.send()
            await lane.seen(run_id, EventType.NODE_STARTED)
            worker.signal(signal.SIGTERM)
            await asyncio.to_thread(worker.ended)

            kinds = await asyncio.to_thread(kinds_until, events, "task-succeeded")

    assert [kind for kind in kinds if kind.startswith("task-")] == ["task-received", "task-started", "task-succeeded"]


async def test_who_listens_only_later_hears_of_the_jobs_from_then_on_each_from_its_beginning(
    lane: Lane, worker: WorkerProcess, redis_url: str
) -> None:
    unheard = [await lane.send() for _ in range(300)]
    for run_id in unheard:
        await lane.ended(run_id)

    with worker_events(redis_url) as events:
        await asyncio.to_thread(kinds_until, events, "worker-heartbeat")
        heard = [await lane.send() for _ in range(50)]
        told = await asyncio.to_thread(told_until, events, {f"{run_id}.1" for run_id in heard})

    assert set(told.values()) == {("task-received", "task-started", "task-succeeded")}


async def test_what_a_stopped_worker_had_not_claimed_goes_to_the_next(
    home: Path, database_url: str, redis_url: str
) -> None:
    async with open_lane(database_url, redis_url, WAITING) as lane:
        with WorkerProcess(home, database_url, redis_url, "--concurrency", "1") as first:
            ids = [await lane.send() for _ in range(6)]
            await lane.seen(ids[0], EventType.NODE_STARTED)
            first.signal(signal.SIGTERM)
            await asyncio.to_thread(first.ended)
        with WorkerProcess(home, database_url, redis_url):
            runs = [await lane.ended(run_id) for run_id in ids]

    assert {(run["status"], run["attempt"]) for run in runs} == {("succeeded", 1)}


async def test_a_restarted_redis_is_worked_on_again(home: Path, tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path / 'flo.db'}"
    with servers.run_redis() as broker:
        async with open_lane(database_url, broker.url) as lane:
            with WorkerProcess(home, database_url, broker.url):
                before = await lane.ended(await lane.send())
                broker.stop()
                await asyncio.sleep(0.6)  # the worker tries in vain, and again
                broker.start()

                after = await lane.ended(await lane.send())

    assert (before["status"], after["status"]) == ("succeeded", "succeeded")


async def test_a_worker_that_was_stopped_leaves_no_process(lane: Lane, worker: WorkerProcess) -> None:
    await lane.ended(await lane.send())
    family = children_of(worker.process.pid)

    worker.signal(signal.SIGTERM)
    await asyncio.to_thread(worker.ended)

    assert family
    await asyncio.to_thread(wait_until_gone, family)


async def test_a_killed_worker_leaves_no_process(lane: Lane, worker: WorkerProcess) -> None:
    await lane.ended(await lane.send())
    family = children_of(worker.process.pid)

    worker.signal(signal.SIGKILL)
    await asyncio.to_thread(worker.ended)

    assert family
    await asyncio.to_thread(wait_until_gone, family)


@contextmanager
def worker_events(redis_url: str) -> Iterator[Iterator[dict[str, object]]]:
    """Listen to the events that Flower listens to (Redis publish/subscribe, JSON, many in one message)."""
    with redis.Redis.from_url(redis_url) as broker, broker.pubsub(ignore_subscribe_messages=True) as ears:
        ears.psubscribe("/0.celeryev*")

        def heard() -> Iterator[dict[str, object]]:
            for message in ears.listen():
                body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
                yield from body if isinstance(body, list) else [body]

        yield heard()


def kinds_until(events: Iterator[dict[str, object]], last: str) -> list[str]:
    kinds: list[str] = []
    while last not in kinds:
        kinds.append(str(next(events)["type"]))
    return kinds


def told_until(events: Iterator[dict[str, object]], jobs: set[str]) -> dict[str, tuple[str, ...]]:
    """Listen until these jobs are over; give what was told of each."""
    told: dict[str, tuple[str, ...]] = dict.fromkeys(jobs, ())
    while not all("task-succeeded" in kinds for kinds in told.values()):
        event = next(events)
        if (job := str(event.get("uuid"))) in told:
            told[job] = (*told[job], str(event["type"]))
    return told


def wait_until_gone(pids: list[int]) -> None:
    """Wait for the ends of processes that are not ours (pidfd_open(2) says when)."""
    import select

    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([handle], [], [], 30)[0], f"process {pid} is still there"
        finally:
            os.close(handle)
