"""A real worker process on a real Redis and a database of its own, and the sending side to drive it with."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatch.bell import Bell, RedisBell, Topic
from dispatch.feed import Feed
from dispatch.outbox import Publisher
from dispatch.queues.base import Queue
from dispatch.queues.redis_queue import RedisQueue
from dispatch.store.runs import read_run
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.run import EventType, RunEvent
from tests.making import add_flow, new_run

#: Seconds; a test machine runs several stacks at once.
PATIENCE = 60


@dataclass
class Lane:
    """The sending side, as the API has it."""

    store: Store
    writer: RunWriter
    queue: Queue
    publisher: Publisher
    bell: Bell
    feed: Feed

    async def send(self, **changes: Any) -> str:
        """Accept and publish a run; give its id."""
        accepted = await self.writer.accept(new_run(**changes))
        assert accepted.job is not None
        self.publisher.publish_soon([accepted.job])
        return accepted.run_id

    async def ended(self, run_id: str) -> dict[str, Any]:
        """Wait for the end of a run, and read it."""
        await self.seen(run_id, EventType.RUN_COMPLETED)
        async with self.store.read() as connection:
            row = await read_run(connection, run_id)
        assert row is not None
        return dict(row)

    async def seen(self, run_id: str, kind: EventType) -> RunEvent:
        """Wait for an event of this kind."""
        async with asyncio.timeout(PATIENCE):
            async for event in self.feed.follow(run_id):
                if event.happening.type is kind:
                    return event
        raise AssertionError(f"run {run_id} ended without {kind}")

    def cancel(self, run_id: str) -> None:
        self.bell.ring(Topic.CANCEL, run_id)


@asynccontextmanager
async def open_lane(database_url: str, redis_url: str, document: dict[str, Any] | None = None) -> AsyncIterator[Lane]:
    """Open the sending side on Redis, and on a database in which the flow is pushed."""
    async with sending_side(database_url, RedisQueue(redis_url), RedisBell(redis_url), document) as lane:
        yield lane


@asynccontextmanager
async def sending_side(
    database_url: str, queue: Queue, bell: Bell, document: dict[str, Any] | None = None
) -> AsyncIterator[Lane]:
    """Open the sending side on this queue and bell, which close with it."""
    store = await Store.open(database_url)
    await add_flow(store, document)
    feed = Feed(store, bell)
    writer = RunWriter(store, on_events=feed.announce)
    publisher = Publisher(queue, writer)
    try:
        yield Lane(store, writer, queue, publisher, bell, feed)
    finally:
        await publisher.settle()
        await queue.aclose()
        await bell.aclose()
        await store.aclose()


class WorkerProcess:
    """`python -m workers`, with its log in a file."""

    def __init__(self, home: Path, database_url: str, redis_url: str, *options: str, **more: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "worker.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        env = {
            **kept,
            "FLO_HOME": str(home),
            "FLO_DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "FLO_V8_HOSTS": "1",
            **more,
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workers", *options], env=env, stdout=out, stderr=out
            )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; give its exit code."""
        return self.process.wait(PATIENCE)
