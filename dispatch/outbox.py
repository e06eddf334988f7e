"""From SQL to the broker: jobs are published right after commit, and the relay sends whatever was left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import select

from dispatch.coalesce import Coalescer
from dispatch.queues.base import Queue
from dispatch.store.runs import mark_published, outbox
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.errors import FloError
from schemas.job import Job

log = structlog.get_logger()

#: How long receipts gather before they are written. Well under the grace after which the relay sends a job again, and
#: late enough that the write does not meet the worker's claim of the same run: SQLite takes one writer at a time.
RECEIPT_LINGER = timedelta(milliseconds=100)
#: Jobs that the relay sends in one go.
RELAY_BATCH = 500


class Publisher:
    """Sends accepted jobs on at once; everything asked for in the same instant goes in one call."""

    def __init__(self, queue: Queue, writer: RunWriter) -> None:
        self._queue = queue
        self._writer = writer
        self._jobs: Coalescer[Job, None] = Coalescer(self._send, most=500)
        self._sent: list[Job] = []
        self._noting: asyncio.Task[None] | None = None

    def publish_soon(self, jobs: Sequence[Job]) -> None:
        """Publish without being waited for. What fails stays in the outbox, and the relay sends it."""
        for job in jobs:
            self._jobs.submit(job)

    async def settle(self) -> None:
        """Wait until everything asked for has been sent, and noted as sent."""
        await self._jobs.settle()
        if self._noting is not None:
            await asyncio.wait([self._noting])

    async def _send(self, jobs: Sequence[Job]) -> Sequence[None]:
        try:
            await self._queue.publish(jobs)
        except FloError as error:
            log.warning("outbox.left", jobs=len(jobs), error=str(error))
        else:
            self._sent.extend(jobs)
            if self._noting is None:
                self._noting = asyncio.create_task(self._note(), name="outbox receipts")
        return [None] * len(jobs)

    async def _note(self) -> None:
        while self._sent:
            await asyncio.sleep(RECEIPT_LINGER.total_seconds())
            jobs, self._sent = self._sent, []
            try:
                await self._writer.published(jobs)
            except FloError as error:
                # They are published once more by the relay: a doubled hint, which claims drop.
                log.warning("outbox.receipt_lost", jobs=len(jobs), error=str(error))
        self._noting = None


async def relay_due(store: Store, queue: Queue, *, now: datetime | None = None) -> int:
    """Publish the jobs that are due in the outbox, oldest first; answer how many.

    A crash between publish and delete sends them again, which claims drop. Raises Unavailable when the broker is away.
    """
    now = now or datetime.now(UTC)
    query = select(outbox.c.job).where(outbox.c.due_at <= now).order_by(outbox.c.due_at).limit(RELAY_BATCH)
    async with store.read() as connection:
        jobs = [Job.model_validate(row.job) for row in await connection.execute(query)]
    if not jobs:
        return 0
    await queue.publish(jobs)
    await store.transact(lambda connection: mark_published(connection, jobs))
    return len(jobs)
