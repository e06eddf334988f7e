"""A lane on SQS or Kafka: the sending side of a test, and the worker processes on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatch.bell import open_bell
from dispatch.queues.celery_app import control_url
from dispatch.queues.choose import open_queue
from dispatch.store.dead_messages import list_messages
from schemas.settings import Settings, load_settings
from tests.carriers import NO_REDIS
from tests.integration.workers.worker_process import PATIENCE, Lane, WorkerProcess, sending_side

#: Short, so that SQS and Kafka miss a killed worker soon.
LEASE = {"FLO_LEASE_SECONDS": "2"}

SHORT = {"name": "short", "nodes": [{"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 600}}]}
LONG = {"name": "long", "nodes": [{"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 30_000}}]}


@dataclass(frozen=True)
class Carrier:
    """Where everything is for one test."""

    home: Path
    database_url: str
    environment: dict[str, str]

    @property
    def settings(self) -> Settings:
        return load_settings({**self.environment, **LEASE})

    def worker(self, *options: str, **more: str) -> WorkerProcess:
        return WorkerProcess(self.home, self.database_url, NO_REDIS, *options, **{**LEASE, **self.environment, **more})


@asynccontextmanager
async def open_carried(carrier: Carrier, document: dict[str, Any] | None = None, **more: str) -> AsyncIterator[Lane]:
    """Open the sending side on the carrier, and on a database in which the flow is pushed."""
    settings = load_settings({**carrier.environment, **LEASE, **more})
    queue, bell = open_queue(settings), open_bell(control_url(settings))
    async with sending_side(carrier.database_url, queue, bell, document) as lane:
        yield lane


async def dead_bodies(lane: Lane) -> set[bytes]:
    """Read the messages that were kept because nobody could read them."""
    async with lane.store.read() as connection:
        kept, _ = await list_messages(connection, after=None, limit=100)
    return {bytes(row["body"]) for row in kept}


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a server tells only when it is asked."""
    async with asyncio.timeout(PATIENCE):
        while not await true():  # noqa: ASYNC110 - no server calls back
            await asyncio.sleep(0.1)
