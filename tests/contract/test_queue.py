"""What every carrier promises on the sending side, its in-memory twin included."""

from __future__ import annotations

import pytest

from dispatch.queues.base import Queue
from dispatch.queues.memory import MemoryQueue
from dispatch.queues.redis_queue import RedisQueue
from schemas.errors import Unavailable
from schemas.job import Job, JobKind


def job(run: str, **changes: object) -> Job:
    return Job.model_validate({"kind": JobKind.FLOW, "run_id": run, "app": "shop", **changes})


@pytest.fixture(params=["memory", "redis"])
async def queue(request: pytest.FixtureRequest):
    made: Queue = MemoryQueue() if request.param == "memory" else RedisQueue(request.getfixturevalue("redis_url"))
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
