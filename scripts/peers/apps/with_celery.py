"""Celery, as its manual words reliability: acknowledge late, send again when the worker is lost."""

from __future__ import annotations

import os

import tasks
from celery import Celery

app = Celery("peers", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    task_default_queue="peers",
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 5, "unacked_restore_interval": 5},
)
TASKS = {work.__name__: app.task(name=f"peers.{work.__name__}")(work) for work in (tasks.noop, tasks.stamp, tasks.call)}


def send(task: str, arguments: tuple[str, ...]) -> None:
    TASKS[task].apply_async(arguments)
