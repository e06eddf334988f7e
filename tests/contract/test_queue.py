"""What every carrier promises on the sending side, its in-memory twin included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dispatch.queues.base import Queue
from dispatch.queues.choose import open_queue
from dispatch.queues.memory import MemoryQueue
from dispatch.queues.redis_queue import RedisQueue
from schemas.errors import SettingsError, Unavailable
from schemas.job import Job, JobKind
from schemas.settings import load_settings
from tests.carriers import CREDENTIALS, environment


def job(run: str, **changes: object) -> Job:
    return Job.model_validate({"kind": JobKind.FLOW, "run_id": run, "app": "shop", **changes})


@pytest.fixture(params=["memory", "redis", "sqs", "sqs-fifo", "kafka"])
async def queue(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queue]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    made = (
        MemoryQueue() if request.param == "memory" else open_queue(load_settings(environment(request, request.param)))
    )
    yield made
    await made.aclose()


async def test_a_published_job_waits_in_its_own_lane(queue: Queue) -> None:
    await queue.publish([job("run_a"), job("run_b", kind="webhook")])

    assert (await queue.depth("flow"), await queue.depth("webhook"), await queue.depth("recurring")) == (1, 1, 0)


async def test_a_worker_group_has_a_lane_of_its_own(queue: Queue) -> None:
    await queue.publish([job("run_a", group="gpu")])

    assert (await queue.depth("flow"), await queue.depth("flow.gpu")) == (0, 1)


async def test_every_priority_counts_into_the_depth(queue: Queue) -> None:
    await queue.publish([job(f"run_{priority}", priority=priority) for priority in range(10)])

    assert await queue.depth("flow") == 10


async def test_a_large_batch_arrives_whole(queue: Queue) -> None:
    await queue.publish([job(f"run_{number}", app=f"app-{number % 7}") for number in range(123)])

    assert await queue.depth("flow") == 123


async def test_batches_that_are_sent_at_once_all_arrive(queue: Queue) -> None:
    await asyncio.gather(*(queue.publish([job(f"run_{number}")]) for number in range(20)))

    assert await queue.depth("flow") == 20


async def test_publishing_nothing_changes_nothing(queue: Queue) -> None:
    await queue.publish([])

    assert await queue.depth("flow") == 0


async def test_a_carrier_that_is_there_answers_a_ping(queue: Queue) -> None:
    await queue.ping()


async def test_a_redis_that_is_not_there_is_named_with_the_fix() -> None:
    queue = RedisQueue("redis://:secret@127.0.0.1:1/0")

    with pytest.raises(Unavailable, match=r"Redis at 127\.0\.0\.1:1/0 does not answer .* correct REDIS_URL") as caught:
        await queue.ping()

    assert "secret" not in str(caught.value)
    with pytest.raises(Unavailable):
        await queue.publish([job("run_a")])
    await queue.aclose()


async def test_an_sqs_that_is_not_there_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    given = {"ASYNC_EXECUTION_BACKEND": "sqs", "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    queue = open_queue(load_settings(given))

    with pytest.raises(Unavailable, match=r"SQS at http://127\.0\.0\.1:1 does not answer .* check AWS_REGION"):
        await queue.ping()

    with pytest.raises(Unavailable):
        await queue.publish([job("run_a")])
    await queue.aclose()


async def test_a_kafka_that_is_not_there_is_named_with_the_fix() -> None:
    given = {"ASYNC_EXECUTION_BACKEND": "kafka", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    queue = open_queue(load_settings(given))

    with pytest.raises(Unavailable, match=r"Kafka at 127\.0\.0\.1:1 does not answer .* KAFKA_BOOTSTRAP_SERVERS"):
        await queue.ping()

    with pytest.raises(Unavailable):
        await queue.publish([job("run_a")])
    await queue.aclose()


def test_a_kafka_without_an_address_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        open_queue(load_settings({"ASYNC_EXECUTION_BACKEND": "kafka"}))


def test_a_carrier_that_carries_nothing_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match="allowed: redis, sqs, kafka"):
        open_queue(load_settings({"ASYNC_EXECUTION_BACKEND": "http"}))
