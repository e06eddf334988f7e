"""Real worker processes on SQS and on Kafka, with no Redis anywhere."""

from __future__ import annotations

import asyncio
import random
import signal
from datetime import timedelta

from dispatch.store.release import request_cancel
from scheduler.reaper import reap_lost
from scheduler.relay import relay
from schemas.run import EventType
from schemas.run import Lane as LaneName
from tests.integration.carriers.carried import LONG, SHORT, Carrier, open_carried, until
from tests.integration.workers.worker_process import Lane, WorkerProcess
from tests.making import new_run


async def test_jobs_of_all_lanes_are_executed(lane: Lane, worker: WorkerProcess) -> None:
    ids = [await lane.send(lane=name) for name in LaneName]

    runs = [await lane.ended(run_id) for run_id in ids]

    assert [(run["status"], run["result"], run["attempt"]) for run in runs] == [
        ("succeeded", {"message": "hello"}, 1)
    ] * 3


async def test_a_worker_says_at_start_what_it_misses_without_a_redis(lane: Lane, worker: WorkerProcess) -> None:
    await lane.ended(await lane.send())

    log = worker.log.read_text()

    assert "Flower, remote control and live hints are off" in log
    assert "FLO_EVENTS_URL" in log


async def test_a_backlog_of_all_priorities_is_worked_off(lane: Lane, worker: WorkerProcess) -> None:
    ids = [await lane.send(priority=number % 10) for number in range(300)]

    runs = [await lane.ended(run_id) for run_id in ids]

    async def nothing_waits() -> bool:
        return await lane.queue.depth("flow") == 0

    assert {(run["status"], run["attempt"]) for run in runs} == {("succeeded", 1)}
    await until(nothing_waits)


async def test_a_worker_group_takes_its_own_lane_only(lane: Lane, carrier: Carrier) -> None:
    with carrier.worker("--group", "gpu", "--lanes", "flow"):
        await lane.send()
        grouped = await lane.ended(await lane.send(worker_group="gpu"))

    assert grouped["status"] == "succeeded"
    assert await lane.queue.depth("flow") == 1


async def test_doubled_and_reordered_messages_do_no_harm(lane: Lane, carrier: Carrier) -> None:
    accepted = [await lane.writer.accept(new_run()) for _ in range(40)]
    jobs = [one.job for one in accepted if one.job is not None] * 3
    random.Random(4).shuffle(jobs)
    await lane.queue.publish(jobs)

    with carrier.worker():
        runs = [await lane.ended(one.run_id) for one in accepted]

    assert {(run["status"], run["attempt"]) for run in runs} == {("succeeded", 1)}


async def test_sigterm_lets_the_runs_finish(carrier: Carrier) -> None:
    async with open_carried(carrier, SHORT) as lane:
        with carrier.worker() as worker:
            ids = [await lane.send() for _ in range(10)]
            await asyncio.gather(*(lane.seen(run_id, EventType.NODE_STARTED) for run_id in ids))

            worker.signal(signal.SIGTERM)

            runs = [await lane.ended(run_id) for run_id in ids]
            code = await asyncio.to_thread(worker.ended)
    assert {(run["status"], run["attempt"]) for run in runs} == {("succeeded", 1)}
    assert code == 0


async def test_what_a_stopped_worker_had_not_claimed_goes_to_the_next(carrier: Carrier) -> None:
    async with open_carried(carrier, SHORT) as lane:
        with carrier.worker("--concurrency", "1") as first:
            ids = [await lane.send() for _ in range(6)]
            await lane.seen(ids[0], EventType.NODE_STARTED)
            first.signal(signal.SIGTERM)
            await asyncio.to_thread(first.ended)
        with carrier.worker():
            runs = [await lane.ended(run_id) for run_id in ids]

    assert {(run["status"], run["attempt"]) for run in runs} == {("succeeded", 1)}


async def test_nothing_is_lost_with_a_killed_worker(carrier: Carrier) -> None:
    async with open_carried(carrier, SHORT) as lane:
        with carrier.worker("--concurrency", "8") as first:
            ids = [await lane.send() for _ in range(60)]
            await lane.seen(ids[0], EventType.RUN_COMPLETED)
            first.signal(signal.SIGKILL)
            await asyncio.to_thread(first.ended)

        reaped = await reap_lost(lane.store, lease=timedelta(0))
        await relay(lane.store, lane.queue)
        with carrier.worker():
            runs = [await lane.ended(run_id) for run_id in ids]

    assert {run["status"] for run in runs} == {"succeeded"}
    assert sum(run["attempt"] - 1 for run in runs) == reaped


async def test_a_run_is_cancelled_at_the_next_heartbeat_when_nobody_can_ring(carrier: Carrier) -> None:
    async with open_carried(carrier, LONG) as lane:
        with carrier.worker():
            run_id = await lane.send()
            await lane.seen(run_id, EventType.NODE_STARTED)

            async with lane.store.write() as connection:
                await request_cancel(connection, run_id, "changed my mind")

            run = await lane.ended(run_id)
    assert run["status"] == "cancelled"
