"""Flower and remote control over FLO_EVENTS_URL, while the jobs come by SQS or Kafka."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatch.queues.celery_app import make_celery
from schemas.run import EventType
from schemas.settings import load_settings
from tests import servers
from tests.integration.carriers.carried import LONG, Carrier, open_carried, until
from tests.integration.workers.worker_process import PATIENCE


@pytest.fixture
def heard(carrier: Carrier, redis_url: str) -> Carrier:
    carrier.environment["FLO_EVENTS_URL"] = redis_url
    return carrier


async def ask(carrier: Carrier, question: str) -> Any:
    """Put a question of `celery inspect` to the only worker, until it answers."""
    app = make_celery(carrier.settings)
    answers: list[Any] = []

    async def answered() -> bool:
        found = await asyncio.to_thread(getattr(app.control.inspect(timeout=1), question))
        answers.extend((found or {}).values())
        return bool(answers)

    await until(answered)
    return answers[0]


async def test_inspect_shows_lanes_pool_and_what_runs(heard: Carrier) -> None:
    async with open_carried(heard, LONG) as lane:
        with heard.worker("--concurrency", "3"):
            run_id = await lane.send()
            await lane.seen(run_id, EventType.NODE_STARTED)

            queues, stats, active = [await ask(heard, question) for question in ("active_queues", "stats", "active")]

    assert {queue["name"] for queue in queues} == {"recurring", "webhook", "flow"}
    assert stats["pool"]["max-concurrency"] == 3
    assert [task["kwargs"]["run"] for task in active] == [run_id]


async def test_the_pool_grows_and_the_worker_stops_on_request(heard: Carrier) -> None:
    control = make_celery(heard.settings).control
    async with open_carried(heard, LONG) as lane:
        with heard.worker("--concurrency", "1") as worker:
            ids = [await lane.send() for _ in range(3)]
            await lane.seen(ids[0], EventType.NODE_STARTED)

            control.pool_grow(2)

            await asyncio.gather(*(lane.seen(run_id, EventType.NODE_STARTED) for run_id in ids))
            for run_id in ids:
                lane.cancel(run_id)
            control.shutdown()
            code = await asyncio.to_thread(worker.ended)
    assert code == 0


async def test_flower_hears_of_every_job(heard: Carrier) -> None:
    app = make_celery(heard.settings)
    told: list[dict[str, Any]] = []

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": told.append})
            for _ in receiver.itercapture(limit=None, timeout=PATIENCE, wakeup=False):
                if any(event["type"] == "task-succeeded" for event in told):
                    return

    async with open_carried(heard) as lane:
        with heard.worker():
            await ask(heard, "stats")
            listening = asyncio.create_task(asyncio.to_thread(listen))
            run_id = await lane.send()
            await lane.ended(run_id)
            await lane.ended(await lane.send())
            await asyncio.wait_for(listening, PATIENCE)

    kinds = {event["type"] for event in told}
    assert {"task-received", "task-started", "task-succeeded"} <= kinds


async def test_jobs_go_on_while_the_redis_for_events_is_away(carrier: Carrier) -> None:
    with servers.run_redis() as events:
        carrier.environment["FLO_EVENTS_URL"] = events.url
        async with open_carried(carrier) as lane:
            with carrier.worker() as worker:
                before = await lane.ended(await lane.send())
                events.stop()

                during = [await lane.ended(await lane.send()) for _ in range(5)]

                events.start()
                stats = await ask(carrier, "stats")
                assert worker.process.poll() is None
    assert {run["status"] for run in (before, *during)} == {"succeeded"}
    assert stats["pool"]["max-concurrency"] == load_settings({}).max_concurrency
