"""The Redis carrier: Celery's own message format (protocol 2), pushed by hand so that a batch is one round trip.

Celery's `apply_async` builds the same message at thirty times the cost and sends each by itself. The format is
https://docs.celeryq.dev/en/stable/internals/protocol.html inside kombu's virtual transport envelope.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from kombu.transport.redis import Channel
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from schemas.errors import Unavailable
from schemas.job import Job
from schemas.json import dumps

#: kombu's lists for priorities: `queue`, `queue\x06\x163`, ... A message of priority 5 goes to the list of step 3.
_STEPS = tuple(Channel.priority_steps)
_SEPARATOR = Channel.sep
_ORIGIN = f"flo@{socket.gethostname()}"


class RedisQueue:
    """Publishes to the lists that Celery workers read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5, health_check_interval=15)

    async def publish(self, jobs: Sequence[Job]) -> None:
        lists: dict[str, list[str]] = {}
        for job in jobs:
            lists.setdefault(list_name(job.queue, job.priority), []).append(envelope(job))
        try:
            await self._push(lists)
        except (RedisConnectionError, OSError):
            # The connection may be one from before Redis was restarted. Sent twice is harmless: a doubled hint.
            try:
                await self._push(lists)
            except (RedisError, OSError) as error:
                raise self._unavailable(error) from error
        except RedisError as error:
            raise self._unavailable(error) from error

    async def _push(self, lists: Mapping[str, Sequence[str]]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, messages in lists.items():
                pipe.lpush(name, *messages)
            await pipe.execute()

    async def depth(self, queue: str) -> int:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for step in _STEPS:
                    pipe.llen(list_name(queue, step))
                return sum(await pipe.execute())
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def ping(self) -> None:
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def aclose(self) -> None:
        await self._redis.aclose()

    def _unavailable(self, error: Exception) -> Unavailable:
        address = self._url.rsplit("@", 1)[-1].removeprefix("redis://")
        return Unavailable(f"Redis at {address} does not answer ({error}); start it, or correct REDIS_URL")


def list_name(queue: str, priority: int) -> str:
    """Name the Redis list in which kombu keeps messages of this queue and priority."""
    step = max(step for step in _STEPS if step <= priority)
    return f"{queue}{_SEPARATOR}{step}" if step else queue


def envelope(job: Job) -> str:
    """Word a job as a Celery task message."""
    body = job.model_dump(mode="json")
    headers: dict[str, Any] = {
        "lang": "py",
        "task": job.kind.task_name,
        "id": job.task_id,
        "root_id": job.task_id,
        "parent_id": None,
        "group": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": repr({"app": job.app, "run": job.run_id}),
        "origin": _ORIGIN,
        "ignore_result": True,
    }
    return dumps(
        {
            "body": dumps([[], {"job": body}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": job.task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": job.queue},
                "priority": job.priority,
                "delivery_tag": job.task_id,
            },
        }
    )
