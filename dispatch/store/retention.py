"""How long things are kept: finished runs with all that is theirs, webhook deliveries, dead letters.

Ids begin with the time they were made, so old runs are found along the primary key; no index on the time of their end
costs every run a write.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select

from dispatch.leases import workers
from dispatch.store.blobs import forget_blobs
from dispatch.store.dead_messages import dead_messages
from dispatch.store.loans import loans, sweep_loans
from dispatch.store.runs import attempts, outbox, run_events, runs
from dispatch.store.triggers import deliveries
from dispatch.store.waitpoints import waitpoints
from schemas.ids import first_id
from schemas.run import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What ended before these moments goes; None keeps it for ever."""

    runs: datetime | None
    dead_letters: datetime | None


def prune_runs(connection: Connection, keep: Retention, *, after: str, most: int) -> tuple[int, str | None]:
    """Delete up to `most` runs, with their events and attempts, from this id on.

    Answers how many, and the id to go on after; None when that was all. A run that is not over is never deleted.
    """
    over = _over(keep)
    newest = max((moment for moment in (keep.runs, keep.dead_letters) if moment is not None), default=None)
    if over is None or newest is None:
        return 0, None
    query = (
        select(runs.c.id)
        .where(runs.c.id > after, runs.c.id < first_id("run", newest), over)
        .order_by(runs.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.scalars(query))
    if ids:
        forget_blobs(connection, ids, before=newest)
        theirs = (table.c.run_id for table in (run_events, attempts, outbox, waitpoints, loans))
        for column in (*theirs, runs.c.id):
            connection.execute(delete(column.table).where(column.in_(ids)))
    return len(ids), ids[-1] if len(ids) == most else None


def prune_rest(connection: Connection, keep: Retention, *, most: int) -> int:
    """Delete up to `most` each of deliveries, unreadable messages, workers that are gone, and loans that are over."""
    pruned = sweep_loans(connection, most=most)
    for column, before in (
        (deliveries.c.received_at, keep.runs),
        (dead_messages.c.received_at, keep.dead_letters),
        (workers.c.heartbeat_at, keep.runs),
    ):
        if before is not None:
            old = select(column.table.c.id).where(column < before).limit(most)
            pruned += connection.execute(delete(column.table).where(column.table.c.id.in_(old))).rowcount
    return pruned


def _over(keep: Retention) -> ColumnElement[bool] | None:
    dead = runs.c.status == str(RunStatus.DEAD)
    ends = []
    if keep.runs is not None:
        ends.append(and_(~dead, runs.c.finished_at < keep.runs))
    if keep.dead_letters is not None:
        ends.append(and_(dead, runs.c.finished_at < keep.dead_letters))
    return or_(*ends) if ends else None
