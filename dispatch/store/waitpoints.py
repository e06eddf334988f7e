"""Waitpoints in SQL: what parked runs wait for, who answers, and who starts the runs again.

Whoever answers locks the run first, then reads the waitpoint; so does the transaction that parks the run. An answer
that comes while the run is parked goes into its events and queues it; one that comes sooner is kept until it parks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, delete, insert, literal_column, or_, select, update
from sqlalchemy import Table as SqlTable

from dispatch.store.blobs import Packing, unpack
from dispatch.store.runs import PUBLISH_GRACE, job_of, outbox, run_events, runs
from dispatch.store.tables import WaitpointRow
from dispatch.store.upsert import insert_or
from schemas.errors import Conflict, FloError, NotFound
from schemas.job import Job
from schemas.json import JSONObject
from schemas.outcome import WaitKind
from schemas.run import EventType, RunEvent, RunStatus
from schemas.waitpoint import opened_by

waitpoints = cast(SqlTable, WaitpointRow.__table__)

WAITING = runs.c.status == literal_column("'waiting'")


class Closed(FloError):
    """The run no longer waits for this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waitpoint:
    """A waitpoint that can still be answered."""

    id: str
    run_id: str
    app: str
    flow: str
    node_id: str
    kind: WaitKind
    message: str | None
    expires_at: datetime | None


def open_ahead(connection: Connection, events: Iterable[RunEvent]) -> None:
    """Write the waitpoints that these events open, in the events' transaction: nobody hears of one that isn't there."""
    now = datetime.now(UTC)
    rows = [
        {"id": opening[0], "run_id": event.run_id, "node_id": event.happening.node_id, "kind": opening[1],
         "opened_at": now}
        for event in events
        if event.happening.type is EventType.DATA
        and event.happening.node_id is not None
        and (opening := opened_by(event.happening.data)) is not None
    ]  # fmt: skip
    if rows:
        connection.execute(insert_or(connection, waitpoints).on_conflict_do_nothing(), rows)


def read_open(connection: Connection, waitpoint: str) -> Waitpoint:
    """Find a waitpoint that can still be answered. Raises NotFound, Conflict (it was answered) or Closed."""
    row = _find(connection, waitpoint)
    _check_open(row)
    return Waitpoint(
        id=row["id"],
        run_id=row["run_id"],
        app=row["app"],
        flow=row["flow"],
        node_id=row["node_id"],
        kind=WaitKind(row["kind"]),
        message=row["message"],
        expires_at=row["expires_at"],
    )


def answer(connection: Connection, waitpoint: str, said: JSONObject, *, reason: str) -> tuple[str, Job | None]:
    """Answer a waitpoint, once; give its run, and what is to be published if that goes on. Raises like `read_open`."""
    run_id = _find(connection, waitpoint)["run_id"]
    run = connection.execute(select(runs).where(runs.c.id == run_id).with_for_update()).mappings().one()
    _check_open(_find(connection, waitpoint))  # again: whoever held the run until now may have answered
    parked = run["status"] == RunStatus.WAITING
    connection.execute(
        update(waitpoints)
        .where(waitpoints.c.id == waitpoint)
        .values(answered_at=datetime.now(UTC), heard=parked, answer=None if parked else said)
    )
    if not parked:
        return run_id, None
    return run_id, resume(connection, run, {"reason": reason, "waitpoint": waitpoint, "answer": said})


def take_kept(connection: Connection, run_id: str) -> list[JSONObject]:
    """Take the answers that came before the run was parked, as its events will say them."""
    mine = (waitpoints.c.run_id == run_id, waitpoints.c.answered_at.is_not(None), ~waitpoints.c.heard)
    found = connection.execute(select(waitpoints).where(*mine).order_by(waitpoints.c.answered_at)).mappings().all()
    if found:
        connection.execute(update(waitpoints).where(*mine).values(heard=True, answer=None))
    reason = "the answer had come before the run was parked"
    return [{"reason": reason, "waitpoint": row["id"], "answer": row["answer"]} for row in found]


def resume(connection: Connection, run: RowMapping, said: JSONObject, *, at: datetime | None = None) -> Job:
    """Queue a parked run, in the transaction that has read `run` for update; `at` is when the relay publishes it."""
    now = datetime.now(UTC)
    seq = run["last_seq"] + 1
    packing = Packing(connection)
    data = packing.pack(said, app=run["app"], run_id=run["id"])
    packing.write()
    connection.execute(
        insert(run_events).values(run_id=run["id"], seq=seq, type=EventType.RUN_RESUMED, time=now, data=data)
    )
    queued = {"status": str(RunStatus.QUEUED), "last_seq": seq, "run_at": None, "published_at": None}
    connection.execute(update(runs).where(runs.c.id == run["id"]).values(queued))
    job = job_of(run, attempt=run["attempt"] + 1)
    connection.execute(delete(outbox).where(outbox.c.run_id == run["id"]))
    message = {"attempt": job.attempt, "job": job.model_dump(mode="json"), "due_at": at or now + PUBLISH_GRACE}
    connection.execute(insert(outbox).values(run_id=run["id"], **message))
    return job


def wake_due(connection: Connection, *, now: datetime, most: int) -> Sequence[str]:
    """Queue parked runs whose time has come; give their ids. Those that others are busy with are left to them."""
    query = select(runs).where(WAITING, runs.c.run_at <= now).order_by(runs.c.run_at).limit(most)
    due = connection.execute(query.with_for_update(skip_locked=True)).mappings().all()
    for run in due:
        resume(connection, run, {"reason": "its time has come", "until": run["run_at"].isoformat()}, at=now)
    return [run["id"] for run in due]


def ended_children(connection: Connection, *, now: datetime, most: int) -> list[tuple[str, JSONObject]]:
    """List the waitpoints whose child runs are over, each with what its caller is to be told."""
    caller = runs.alias("caller")
    query = (
        select(waitpoints.c.id, waitpoints.c.child_run, runs.c.status, runs.c.result, runs.c.error)
        .join(runs, runs.c.id == waitpoints.c.child_run)
        .where(waitpoints.c.child_run.is_not(None), waitpoints.c.answered_at.is_(None), runs.c.status.not_in(_LIVE))
        .join(caller, caller.c.id == waitpoints.c.run_id)
        .where(caller.c.status.in_(_LIVE), or_(waitpoints.c.expires_at.is_(None), waitpoints.c.expires_at > now))
        .limit(most)
    )
    rows = unpack(connection, connection.execute(query).mappings().all())
    return [(row["id"], _ended(row)) for row in rows]


def _ended(row: Mapping[Any, Any]) -> JSONObject:
    return {"run_id": row["child_run"], "status": row["status"], "result": row["result"], "error": row["error"]}


def orphans(connection: Connection, *, now: datetime, most: int) -> Sequence[str]:
    """Name the child runs that nobody waits for any more: their callers are over, or have waited long enough."""
    child = runs.alias("child")
    query = (
        select(child.c.id)
        .join(waitpoints, waitpoints.c.child_run == child.c.id)
        .join(runs, runs.c.id == waitpoints.c.run_id)
        .where(waitpoints.c.child_run.is_not(None), waitpoints.c.answered_at.is_(None))
        .where(or_(runs.c.status.not_in(_LIVE), waitpoints.c.expires_at <= now))
        .where(child.c.status.in_(_LIVE), child.c.cancel_reason.is_(None))
        .limit(most)
    )
    return list(connection.scalars(query))


_LIVE = [str(status) for status in RunStatus if not status.terminal]
_FOUND = select(waitpoints, runs.c.app, runs.c.flow, runs.c.status).join(runs, runs.c.id == waitpoints.c.run_id)


def _find(connection: Connection, waitpoint: str) -> RowMapping:
    row = connection.execute(_FOUND.where(waitpoints.c.id == waitpoint)).mappings().one_or_none()
    if row is None:
        raise NotFound("no run waits here; check the URL for a typing error")
    return row


def _check_open(row: RowMapping) -> None:
    if row["answered_at"] is not None:
        at = row["answered_at"].isoformat(timespec="seconds")
        raise Conflict(f"this was answered at {at}, and can be only once; the run goes on with that answer")
    if RunStatus(row["status"]).terminal:
        raise Closed(f"run {row['run_id']} is {row['status']}; it no longer waits for an answer")
    if row["expires_at"] is not None and row["expires_at"] <= datetime.now(UTC):
        at = row["expires_at"].isoformat(timespec="seconds")
        raise Closed(f"the answer was awaited until {at}; the run goes on without it")
