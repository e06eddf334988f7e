"""Finds runs that nobody will finish any more, and queues them again.

Two kinds: runs whose worker stopped beating, and queued runs whose message the broker no longer has. Both are decided
on rows in SQL and written under their lock, so that a late worker, a second reaper and a crash in between do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import RowMapping, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.leases import workers
from dispatch.queues.base import Queue
from dispatch.store.runs import job_of, lose_attempt, outbox, runs
from dispatch.store.session import Store
from schemas.run import RunStatus

log = structlog.get_logger()

#: Rows in one transaction.
_BATCH = 200
#: How long a published message may stay in flight, between broker and claim, before it is looked for.
_IN_FLIGHT = timedelta(seconds=5)


async def reap_lost(store: Store, *, lease: timedelta) -> int:
    """Take runs from workers that have not beaten for a lease, or have ended; answer how many."""
    reaped = 0
    while True:
        async with store.write() as connection:
            rows = await _abandoned(connection, lease)
            for row in rows:
                reason = "its worker stopped beating (killed, frozen, or cut off)"
                status = await lose_attempt(connection, row, reason=reason, due_at=datetime.now(UTC))
                log.warning("run.reaped", run_id=row["id"], attempt=row["attempt"], owner=row["owner"], now=str(status))
        reaped += len(rows)
        if len(rows) < _BATCH:
            return reaped


async def _abandoned(connection: AsyncConnection, lease: timedelta) -> Sequence[RowMapping]:
    now = datetime.now(UTC)
    query = (
        select(runs)
        .join(workers, workers.c.id == runs.c.owner, isouter=True)
        .where(
            runs.c.status == "running",
            or_(workers.c.id.is_(None), workers.c.heartbeat_at < now - lease, workers.c.stopped_at.is_not(None)),
        )
        .order_by(runs.c.id)
        .limit(_BATCH)
        .with_for_update(of=runs, skip_locked=True)
    )
    return (await connection.execute(query)).mappings().all()


async def republish_vanished(store: Store, queue: Queue) -> int:
    """Put queued runs back into the outbox whose message is gone; answer how many.

    A lane's backlog in SQL that the broker has too needs nothing: only as many runs are published again as messages
    are missing, the oldest first. Raises Unavailable when the broker is away.
    """
    now = datetime.now(UTC)
    republished = 0
    for lane, group, waiting in await _backlogs(store, now):
        name = f"{lane}.{group}" if group else lane
        missing = waiting - await queue.depth(name)
        if missing > 0:
            republished += await _republish(store, lane, group, min(missing, _BATCH * 5), now)
    return republished


async def _backlogs(store: Store, now: datetime) -> list[tuple[str, str | None, int]]:
    query = (
        select(runs.c.lane, runs.c.worker_group, func.count())
        .where(runs.c.status == "queued", runs.c.published_at < now - _IN_FLIGHT)
        .group_by(runs.c.lane, runs.c.worker_group)
    )
    async with store.read() as connection:
        return [(row[0], row[1], row[2]) for row in await connection.execute(query)]


async def _republish(store: Store, lane: str, group: str | None, most: int, now: datetime) -> int:
    query = (
        select(runs)
        .where(
            runs.c.status == str(RunStatus.QUEUED),
            runs.c.lane == lane,
            runs.c.worker_group.is_(None) if group is None else runs.c.worker_group == group,
            runs.c.published_at < now - _IN_FLIGHT,
            ~select(outbox.c.run_id).where(outbox.c.run_id == runs.c.id).exists(),
        )
        .order_by(runs.c.published_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    async with store.write() as connection:
        rows = (await connection.execute(query)).mappings().all()
        if rows:
            jobs = [job_of(row, attempt=row["attempt"] + 1) for row in rows]
            await connection.execute(
                insert(outbox),
                [
                    {"run_id": job.run_id, "attempt": job.attempt, "job": job.model_dump(mode="json"), "due_at": now}
                    for job in jobs
                ],
            )
    if rows:
        log.warning("message.vanished", lane=lane, runs=len(rows))
    return len(rows)
