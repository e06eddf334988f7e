"""Loans: attempts that are executed where the death of their worker does not end them.

A worker writes the loan first and starts the attempt there second. While the loan lasts, nobody else gets the run,
whatever became of the worker; each accepted word from there makes it last longer. It ends with the attempt, or by
itself, and then the reaper queues the run again. Whoever changes a loan has locked its run: the reaper looks once more
when it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, exists, select, update
from sqlalchemy import Table as SqlTable

from dispatch.claims import LostClaim
from dispatch.store.blobs import Packing, unpack
from dispatch.store.runs import runs
from dispatch.store.tables import LoanRow
from dispatch.store.upsert import insert_or
from schemas.errors import Conflict
from schemas.json import JSONObject

loans = cast(SqlTable, LoanRow.__table__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """An attempt that is somewhere, as the worker that looks after that place finds it."""

    run_id: str
    app: str
    attempt: int
    handle: str
    until: datetime
    #: The process that has begun with it; None while none has.
    taken_by: str | None
    #: Why the run is to be stopped, if it is.
    cancel_reason: str | None


def is_lent() -> ColumnElement[bool]:
    """Say of a row of `runs` that its attempt is lent, and the loan has not run out."""
    return exists().where(
        loans.c.run_id == runs.c.id, loans.c.attempt == runs.c.attempt, loans.c.until > datetime.now(UTC)
    )


def lent_among(connection: Connection, run_ids: Sequence[str]) -> set[str]:
    """Look again, once these runs are locked, which of them are lent."""
    return set(connection.scalars(select(runs.c.id).where(runs.c.id.in_(run_ids), is_lent())))


def lend(
    connection: Connection, run_id: str, attempt: int, *, backend: str, handle: str, until: datetime, order: JSONObject
) -> None:
    """Write a loan; again with the same words changes nothing. Raises LostClaim when the attempt has not the run."""
    run = _lock(connection, run_id)
    if run is None or run["attempt"] != attempt:
        raise LostClaim(run_id)
    packing = Packing(connection)
    kept = packing.pack(order, app=run["app"], run_id=run_id)
    row = {"attempt": attempt, "backend": backend, "handle": handle, "until": until, "order": kept, "taken_by": None}
    put = insert_or(connection, loans).values(run_id=run_id, **row)
    put = put.on_conflict_do_update(index_elements=["run_id"], set_=row, where=loans.c.attempt < attempt)
    connection.execute(put)
    packing.write()


def take_order(connection: Connection, run_id: str, attempt: int, *, by: str, until: datetime) -> JSONObject:
    """Give the order to the first process that asks, and again to the same one. Raises Conflict with the reason."""
    run = _lock(connection, run_id)
    if run is None or run["attempt"] != attempt:
        raise Conflict(f"attempt {attempt} has not run {run_id} any more; execute nothing")
    if run["cancel_reason"] is not None:
        raise Conflict(f"run {run_id} is to be stopped ({run['cancel_reason']}); execute nothing")
    mine = (loans.c.run_id == run_id, loans.c.attempt == attempt)
    loan = connection.execute(select(loans).where(*mine)).mappings().one_or_none()
    if loan is None or loan["until"] < datetime.now(UTC):
        raise Conflict(f"attempt {attempt} of run {run_id} is not lent to anybody, or should have begun before now")
    if loan["taken_by"] not in (None, by):
        raise Conflict(f"attempt {attempt} of run {run_id} is executed by {loan['taken_by']} already; execute nothing")
    connection.execute(update(loans).where(*mine).values(taken_by=by, until=until))
    return cast(JSONObject, unpack(connection, [loan])[0]["order"])


def renew(connection: Connection, run_id: str, attempt: int, *, until: datetime) -> bool:
    """Have a loan last longer; never less long. False when the attempt has not the run, or nobody took its order."""
    run = _lock(connection, run_id)
    if run is None or run["attempt"] != attempt:
        return False
    mine = (loans.c.run_id == run_id, loans.c.attempt == attempt, loans.c.taken_by.is_not(None))
    connection.execute(update(loans).where(*mine, loans.c.until < until).values(until=until))
    return connection.scalar(select(exists().where(*mine))) is True


def is_untaken(connection: Connection, run_id: str, attempt: int) -> bool:
    """Tell, of a locked run, whether its attempt is lent and nobody has asked for the order yet."""
    mine = (loans.c.run_id == run_id, loans.c.attempt == attempt, loans.c.taken_by.is_(None))
    return connection.scalar(select(exists().where(*mine))) is True


def end_loans(connection: Connection, run_ids: Sequence[str]) -> None:
    """Forget the loans of attempts that are over."""
    connection.execute(delete(loans).where(loans.c.run_id.in_(run_ids)))


def sweep_loans(connection: Connection, *, most: int) -> int:
    """Forget up to `most` loans of attempts that have not their runs any more; answer how many."""
    still = exists().where(runs.c.id == loans.c.run_id, runs.c.attempt == loans.c.attempt, runs.c.status == "running")
    over = select(loans.c.run_id).where(~still).limit(most)
    return connection.execute(delete(loans).where(loans.c.run_id.in_(over))).rowcount


def read_lent(connection: Connection, backend: str) -> list[Lent]:
    """List the attempts that are with a backend, those too whose loan has run out and that nobody has taken away."""
    # Without the orders: whoever looks after a thousand attempts does not want to read what each is to do.
    columns = (loans.c.run_id, loans.c.attempt, loans.c.handle, loans.c.until, loans.c.taken_by)
    query = (
        select(*columns, runs.c.app, runs.c.cancel_reason)
        .join(runs, (runs.c.id == loans.c.run_id) & (runs.c.attempt == loans.c.attempt))
        .where(loans.c.backend == backend, runs.c.status == "running")
        .order_by(loans.c.run_id)
    )
    fields = ("run_id", "app", "attempt", "handle", "until", "taken_by", "cancel_reason")
    return [Lent(**{name: row[name] for name in fields}) for row in connection.execute(query).mappings()]


def _lock(connection: Connection, run_id: str) -> RowMapping | None:
    query = (
        select(runs.c.app, runs.c.attempt, runs.c.cancel_reason)
        .where(runs.c.id == run_id, runs.c.status == "running")
        .with_for_update()
    )
    return connection.execute(query).mappings().one_or_none()
