"""Huey on Redis; it has no acknowledgement."""

from __future__ import annotations

import os

import tasks
from huey import RedisHuey

huey = RedisHuey("peers", url=os.environ["REDIS_URL"], results=False)
TASKS = {work.__name__: huey.task()(work) for work in (tasks.noop, tasks.stamp, tasks.call)}


def send(task: str, arguments: tuple[str, ...]) -> None:
    TASKS[task](*arguments)
