"""Taskiq on a Redis stream, which acknowledges, and takes over what was not after the same five seconds."""

from __future__ import annotations

import asyncio
import functools
import os

import tasks
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["REDIS_URL"], queue_name="peers", consumer_group_name="peers", idle_timeout=5_000)
TASKS = {
    work.__name__: broker.task(task_name=f"peers.{work.__name__}")(work)
    for work in (tasks.noop, tasks.stamp, tasks.call)
}


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Start the sending side, at first use: workers import this file too."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.startup())
    return loop


def send(task: str, arguments: tuple[str, ...]) -> None:
    _loop().run_until_complete(TASKS[task].kiq(*arguments))
