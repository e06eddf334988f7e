"""Finds runs that nobody will finish any more, and queues them again.

Three kinds: runs whose worker stopped beating, queued runs whose message the broker no longer has, and runs in line for
a place that is free. All are decided on rows in SQL and written under their lock, so that a late worker, a second
reaper and a crash in between do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import ColumnElement, Connection, exists, func, insert, literal_column, or_, select

from dispatch.leases import silent_owners, workers
from dispatch.queues.base import Queue
from dispatch.store.gates import Scope, open_gates
from dispatch.store.line import pass_on
from dispatch.store.release import lose_runs
from dispatch.store.runs import job_of, outbox, runs
from dispatch.store.session import Store
from dispatch.store.turns import stalled

log = structlog.get_logger()

#: Rows in one transaction.
_BATCH = 200
_SILENT = "its worker stopped beating (killed, frozen, or cut off)"
#: How long a published message may stay in flight, between broker and claim, before it is looked for.
IN_FLIGHT = timedelta(seconds=5)


async def reap_lost(store: Store, *, lease: timedelta) -> int:
    """Take runs from workers that have not beaten for a lease, or have ended; answer how many."""
    reaped = 0
    while True:
        async with store.write() as connection:
            silent = await silent_owners(connection, lease=lease)
            nobodys = runs.c.owner.is_(None) | ~exists().where(workers.c.id == runs.c.owner)
            lost = await lose_runs(connection, nobodys | runs.c.owner.in_(silent), reason=_SILENT, most=_BATCH)
        for one in lost:
            log.warning("run.reaped", run_id=one.run_id, attempt=one.attempt, owner=one.owner, now=str(one.now))
        reaped += len(lost)
        if len(lost) < _BATCH:
            return reaped


async def call_waiting(store: Store) -> int:
    """Give free places to runs in line that nobody called to them; answer how many were called.

    Mends what no ending run sees: limits that were raised or lifted, and places freed in the same instant.
    """
    called = 0
    async with store.read() as connection:
        scopes = await connection.run_sync(stalled)
    for app in sorted({app for app, _ in scopes}):
        mine = [scope for scope in scopes if scope[0] == app]
        called += await store.transact(partial(_call_app, scopes=mine))
    if called:
        log.info("line.mended", runs=called)
    return called


def _call_app(connection: Connection, *, scopes: Sequence[Scope]) -> int:
    (gate,) = open_gates(connection, ended=scopes, always=True)
    # Runs without a key wait in an app without limits only if there were some until now.
    return pass_on(connection, gate, whole=(gate.app, None) in scopes).calls


async def republish_vanished(store: Store, queue: Queue, *, in_flight: timedelta = IN_FLIGHT) -> int:
    """Put queued runs back into the outbox whose message, sent before `in_flight`, is gone; answer how many.

    A lane's backlog in SQL that the broker has too needs nothing: only as many runs are published again as messages
    are missing, the oldest first. Raises Unavailable when the broker is away.
    """
    now = datetime.now(UTC)
    before = now - in_flight
    republished = 0
    for lane, group, waiting in await _backlogs(store, before):
        name = f"{lane}.{group}" if group else lane
        missing = waiting - await queue.depth(name)
        if missing > 0:
            republished += await _republish(store, lane, group, min(missing, _BATCH * 5), before)
    return republished


async def _backlogs(store: Store, before: datetime) -> list[tuple[str, str | None, int]]:
    query = (
        select(runs.c.lane, runs.c.worker_group, func.count())
        .where(*_gone(before))
        .group_by(runs.c.lane, runs.c.worker_group)
    )
    async with store.read() as connection:
        return [(row[0], row[1], row[2]) for row in await connection.execute(query)]


def _gone(before: datetime) -> tuple[ColumnElement[bool], ...]:
    """Say which runs should have a message at the broker: not those in line, nor whose message is in the outbox."""
    return (
        runs.c.status == literal_column("'queued'"),
        runs.c.published_at < before,
        or_(runs.c.blocked_by.is_(None), runs.c.called_at.is_not(None)),
        ~exists().where(outbox.c.run_id == runs.c.id),
    )


async def _republish(store: Store, lane: str, group: str | None, most: int, before: datetime) -> int:
    query = (
        select(runs)
        .where(
            runs.c.lane == lane,
            runs.c.worker_group.is_(None) if group is None else runs.c.worker_group == group,
            *_gone(before),
        )
        .order_by(runs.c.published_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    async with store.write() as connection:
        rows = (await connection.execute(query)).mappings().all()
        if rows:
            now = datetime.now(UTC)
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
