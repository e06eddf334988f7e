"""From SQL to the broker: jobs are published right after commit, and the relay sends whatever was left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, and_, bindparam, delete, select, update

from dispatch.coalesce import Coalescer
from dispatch.queues.base import Queue
from dispatch.store.runs import note_published, outbox
from dispatch.store.session import Store
from dispatch.store.tables import Instant
from dispatch.store.writer import RunWriter
from schemas.errors import FloError
from schemas.job import Job

log = structlog.get_logger()

#: How long receipts gather before they are written. Well under the grace after which the relay sends a job again, and
#: late enough that the write does not meet the worker's claim of the same run: SQLite takes one writer at a time.
RECEIPT_LINGER = timedelta(milliseconds=100)
#: Jobs that the relay sends in one go.
RELAY_BATCH = 500
#: How long the relay keeps a batch to itself. One whose relay died in between is sent after this; one that takes longer
#: to send may be sent twice, which does no harm.
RELAY_LEASE = timedelta(seconds=5)


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

    Each batch is taken for a while, in SQL: another replica's relay passes over it, and no lock is held while the
    broker is spoken to. A crash between publish and delete sends the batch again later, which claims drop. Raises
    Unavailable when the broker is away.
    """
    now = now or datetime.now(UTC)
    until = now + RELAY_LEASE
    jobs = await store.transact(partial(_take_due, now=now, until=until))
    if not jobs:
        return 0
    try:
        await queue.publish(jobs)
    except FloError:
        await store.transact(partial(_give_back, jobs=jobs, until=until, now=now))
        raise
    await store.transact(partial(_delete_sent, jobs=jobs, until=until))
    return len(jobs)


def _take_due(connection: Connection, *, now: datetime, until: datetime) -> list[Job]:
    query = select(outbox.c.run_id, outbox.c.attempt, outbox.c.job).where(outbox.c.due_at <= now)
    locked = query.order_by(outbox.c.due_at).limit(RELAY_BATCH).with_for_update(skip_locked=True)
    jobs = [Job.model_validate(row.job) for row in connection.execute(locked)]
    if jobs:
        connection.execute(_TAKE, [{**row, "until": until} for row in _named(jobs)])
    return jobs


def _give_back(connection: Connection, *, jobs: Sequence[Job], until: datetime, now: datetime) -> None:
    connection.execute(_MOVE, [{**row, "until": until, "at": now} for row in _named(jobs)])


def _delete_sent(connection: Connection, *, jobs: Sequence[Job], until: datetime) -> None:
    note_published(connection, jobs)  # runs are locked before their messages, as everywhere
    connection.execute(_DELETE, [{**row, "until": until} for row in _named(jobs)])


def _named(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    return [{"run": job.run_id, "number": job.attempt} for job in jobs]


_ROW = and_(outbox.c.run_id == bindparam("run"), outbox.c.attempt == bindparam("number"))
#: The row as it was taken: one that was written anew meanwhile is due at another time, and stays.
_TAKEN = and_(_ROW, outbox.c.due_at == bindparam("until", type_=Instant()))
_TAKE = update(outbox).where(_ROW).values(due_at=bindparam("until"))
_MOVE = update(outbox).where(_TAKEN).values(due_at=bindparam("at"))
_DELETE = delete(outbox).where(_TAKEN)
