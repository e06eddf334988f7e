"""How runs are taken from whoever holds them: cancelled on request, or lost with their worker.

Both free places under their app's limits, and give them to the next in line in the same transaction. Gates are opened
before rows are locked, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.gates import Gate, open_gates
from dispatch.store.line import free
from dispatch.store.loans import end_loans, is_lent, is_untaken, lent_among
from dispatch.store.runs import finish_unowned, lose_attempt, runs
from schemas.outcome import ErrorKind, RunError
from schemas.run import RunStatus

_UNHEARD = "nothing was heard in time from where it was executed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """An attempt that was ended for its worker, and what its run has become."""

    run_id: str
    attempt: int
    #: None for one whose worker had let go of it.
    owner: str | None
    now: RunStatus


async def request_cancel(connection: AsyncConnection, run_id: str, reason: str) -> RunStatus | None:
    """Ask for a run to stop; see `request_cancels`. None when there is no such run."""
    return (await request_cancels(connection, [run_id], reason)).get(run_id)


async def request_cancels(connection: AsyncConnection, run_ids: Sequence[str], reason: str) -> dict[str, RunStatus]:
    """Ask for runs to stop: a waiting one ends here, a running one when its worker has killed it.

    Answers the status that each now has. Asking again changes nothing.
    """
    gates = await _gates_of(connection, run_ids)
    found = await connection.execute(
        select(runs).where(runs.c.id.in_(run_ids)).order_by(runs.c.id).with_for_update(of=runs)
    )
    statuses = {row["id"]: await _cancel(connection, row, reason) for row in found.mappings().all()}
    await connection.run_sync(free, gates)
    return statuses


async def lose_runs(
    connection: AsyncConnection, which: ColumnElement[bool], *, reason: str, most: int
) -> Sequence[Lost]:
    """End the attempts of up to `most` running runs that nobody works on any more: queue, or dead-letter, their runs.

    Runs that another transaction is busy with are left alone, and those whose attempt is lent, while the loan lasts.
    """
    which = which & (runs.c.status == "running") & ~is_lent()
    ids = (await connection.execute(select(runs.c.id).where(which).order_by(runs.c.id).limit(most))).scalars().all()
    if not ids:
        return []
    gates = await _gates_of(connection, ids)
    query = select(runs).where(which, runs.c.id.in_(ids)).order_by(runs.c.id)
    rows = (await connection.execute(query.with_for_update(of=runs, skip_locked=True))).mappings().all()
    lent = await connection.run_sync(lent_among, [row["id"] for row in rows])
    lost = []
    for row in rows:
        if row["id"] in lent:  # since this statement began
            continue
        why = reason if row["owner"] is not None else _UNHEARD
        now = await lose_attempt(connection, row, reason=why, due_at=datetime.now(UTC))
        lost.append(Lost(run_id=row["id"], attempt=row["attempt"], owner=row["owner"], now=now))
    await connection.run_sync(end_loans, [one.run_id for one in lost])
    await connection.run_sync(free, gates)
    return lost


async def _gates_of(connection: AsyncConnection, run_ids: Sequence[str]) -> list[Gate]:
    found = await connection.execute(select(runs.c.app, runs.c.concurrency_key).where(runs.c.id.in_(run_ids)))
    scopes = [(row.app, row.concurrency_key) for row in found]
    return await connection.run_sync(lambda plain: open_gates(plain, ended=scopes))


async def _cancel(connection: AsyncConnection, row: RowMapping, reason: str) -> RunStatus:
    status = RunStatus(row["status"])
    if status is RunStatus.RUNNING:
        if row["cancel_reason"] is None:
            await connection.execute(update(runs).where(runs.c.id == row["id"]).values(cancel_reason=reason))
        if row["owner"] is not None or not await connection.run_sync(is_untaken, row["id"], row["attempt"]):
            return status
        # Nobody has begun with it, and from now on nobody can.
    if status.terminal:
        return status
    error = RunError(kind=ErrorKind.CANCELLED, message=reason)
    await finish_unowned(connection, row, RunStatus.CANCELLED, error)
    return RunStatus.CANCELLED
