"""Dramatiq on Redis, with a heartbeat as short as the others' time-outs."""

from __future__ import annotations

import os

import dramatiq
import tasks
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"], heartbeat_timeout=5_000, maintenance_chance=100_000))
TASKS = {work.__name__: dramatiq.actor(work) for work in (tasks.noop, tasks.stamp, tasks.call)}


def send(task: str, arguments: tuple[str, ...]) -> None:
    TASKS[task].send(*arguments)
