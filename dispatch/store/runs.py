"""Queries about runs that are made one at a time; the busy writes are batched in `writer.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast

from sqlalchemy import Connection, CursorResult, RowMapping, bindparam, delete, insert, literal_column, select, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.blobs import Packing, unpacked
from dispatch.store.tables import AttemptRow, OutboxRow, RunEventRow, RunRow
from schemas.errors import Conflict
from schemas.ids import new_id
from schemas.job import Job, JobKind
from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, RunError
from schemas.run import EventType, Happening, Lane, RunStatus

runs = cast(SqlTable, RunRow.__table__)
run_events = cast(SqlTable, RunEventRow.__table__)
outbox = cast(SqlTable, OutboxRow.__table__)
attempts = cast(SqlTable, AttemptRow.__table__)

#: A row of `runs`, by column names.
RunRecord: TypeAlias = Mapping[Any, Any]

#: How long the process that accepted a run may take to publish it before the relay does.
PUBLISH_GRACE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that is about to be accepted."""

    app: str
    flow: str
    version: int
    event: str | None
    lane: Lane
    payload: JSONValue
    max_attempts: int
    id: str = field(default_factory=lambda: new_id("run"))
    priority: int = 5
    mode: str | None = None
    backend_config: JSONObject | None = None
    worker_group: str | None = None
    concurrency_key: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    retry_of: str | None = None
    #: What it takes over from the run that it repeats: events that follow its first one.
    taken_over: Sequence[Happening] = ()
    parent_run: str | None = None
    depth: int = 0
    #: The only node of the flow that it is to run, with what is given to it as payload.
    node: str | None = None
    delivery_id: str | None = None
    run_at: datetime | None = None

    def job(self, *, attempt: int = 1) -> Job:
        return _job(
            run_id=self.id,
            app=self.app,
            lane=self.lane,
            attempt=attempt,
            priority=self.priority,
            group=self.worker_group,
        )


async def insert_runs(connection: AsyncConnection, new: Sequence[NewRun], *, tracked_only: bool = False) -> list[Job]:
    """Write runs in the caller's transaction; see `put_runs`."""
    return await connection.run_sync(put_runs, new, tracked_only=tracked_only)


def put_runs(connection: Connection, new: Sequence[NewRun], *, tracked_only: bool = False) -> list[Job]:
    """Write runs, their first event and their outbox rows in the caller's transaction; answer what to publish at once.

    Runs with a `run_at` in the future are left to the relay. `tracked_only` writes no outbox row: nothing will take
    the run but the caller.
    """
    if not new:
        return []
    now = datetime.now(UTC)
    if tracked_only:  # nothing claims such a run, so it must not keep a place under its key
        new = [replace(run, concurrency_key=None) for run in new]
    packing = Packing(connection)
    connection.execute(_INSERT_RUN, [_run_row(run, now, packing) for run in new])
    taken_over = [row for run in new for row in _taken_over_rows(run, packing)]
    packing.write()
    connection.execute(_INSERT_EVENT, [*(_queued_row(run, now) for run in new), *taken_over])
    if tracked_only:
        return []
    connection.execute(_INSERT_OUTBOX, [_outbox_row(run, now) for run in new])
    return [run.job() for run in new if run.run_at is None or run.run_at <= now]


# Made once: SQLAlchemy finds the compiled form by the object, instead of taking the statement apart each time.
_INSERT_RUN = insert(runs)
_INSERT_EVENT = insert(run_events)
_INSERT_OUTBOX = insert(outbox)


async def read_run(connection: AsyncConnection, run_id: str) -> RunRecord | None:
    """Read one run with all its columns."""
    rows = (await connection.execute(select(runs).where(runs.c.id == run_id))).mappings().all()
    return next(iter(await unpacked(connection, rows)), None)


async def list_runs(
    connection: AsyncConnection,
    *,
    app: str | None = None,
    status: str | None = None,
    lane: str | None = None,
    event: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> tuple[Sequence[RunRecord], str | None]:
    """List runs, newest first; the cursor is the id of the last one shown."""
    query = select(runs).order_by(runs.c.id.desc()).limit(limit + 1)
    if status is not None:
        # Written into the statement, so that a partial index of this status serves it.
        query = query.where(runs.c.status == bindparam("is", status, literal_execute=True))
    for column, wanted in ((runs.c.app, app), (runs.c.lane, lane), (runs.c.event, event)):
        if wanted is not None:
            query = query.where(column == wanted)
    if cursor is not None:
        query = query.where(runs.c.id < cursor)
    rows = (await connection.execute(query)).mappings().all()
    next_cursor = rows[limit - 1]["id"] if len(rows) > limit else None
    return await unpacked(connection, rows[:limit]), next_cursor


async def finish_unowned(connection: AsyncConnection, row: RowMapping, status: RunStatus, error: RunError) -> None:
    """End a run that no worker holds, in the transaction that has read `row` for update."""
    now = datetime.now(UTC)
    seq = row["last_seq"] + 1
    ended: JSONObject = {"status": str(status), "result": None, "error": error.model_dump(mode="json")}
    await connection.execute(
        update(runs)
        .where(runs.c.id == row["id"])
        .values(status=str(status), error=ended["error"], finished_at=now, last_seq=seq, owner=None, blocked_by=None)
    )
    await connection.execute(
        insert(run_events).values(run_id=row["id"], seq=seq, type=EventType.RUN_COMPLETED, time=now, data=ended)
    )
    await connection.execute(delete(outbox).where(outbox.c.run_id == row["id"]))


async def requeue_unowned(connection: AsyncConnection, row: RowMapping, *, due_at: datetime) -> Job:
    """Queue a run again that no worker holds any more, in the transaction that has read `row` for update."""
    now = datetime.now(UTC)
    seq = row["last_seq"] + 1
    job = job_of(row, attempt=row["attempt"] + 1)
    await connection.execute(
        update(runs)
        .where(runs.c.id == row["id"])
        .values(
            status=str(RunStatus.QUEUED),
            owner=None,
            last_seq=seq,
            run_at=None,
            published_at=None,
            finished_at=None,
            error=None,
        )
    )
    await connection.execute(
        insert(run_events).values(
            run_id=row["id"],
            seq=seq,
            type=EventType.RUN_QUEUED,
            time=now,
            data={"lane": job.queue, "attempt": job.attempt},
        )
    )
    await connection.execute(delete(outbox).where(outbox.c.run_id == row["id"]))
    await connection.execute(
        insert(outbox).values(run_id=row["id"], attempt=job.attempt, job=job.model_dump(mode="json"), due_at=due_at)
    )
    return job


async def lose_attempt(connection: AsyncConnection, row: RowMapping, *, reason: str, due_at: datetime) -> RunStatus:
    """End an attempt that will never report, in the transaction that has read `row` for update.

    The run is queued again, or dead-lettered after its last attempt, or cancelled if that was asked for.
    """
    await connection.execute(
        update(attempts)
        .where(attempts.c.run_id == row["id"], attempts.c.attempt == row["attempt"])
        .values(finished_at=datetime.now(UTC), outcome="lost", reason=reason)
    )
    if row["cancel_reason"] is not None:
        error = RunError(kind=ErrorKind.CANCELLED, message=row["cancel_reason"])
        await finish_unowned(connection, row, RunStatus.CANCELLED, error)
        return RunStatus.CANCELLED
    if row["attempt"] >= row["max_attempts"]:
        await finish_unowned(connection, row, RunStatus.DEAD, given_up(row["attempt"], reason))
        return RunStatus.DEAD
    await requeue_unowned(connection, row, due_at=due_at)
    return RunStatus.QUEUED


def given_up(attempt: int, reason: str) -> RunError:
    """Word the error of a run that is dead-lettered."""
    tries = f"{attempt} attempt{'s' if attempt != 1 else ''}"
    return RunError(
        kind=ErrorKind.LOST,
        message=f"given up after {tries}; the last: {reason}. Redrive it once the cause is mended",
    )


async def redrive(connection: AsyncConnection, run_id: str) -> Job | None:
    """Give a dead-lettered run a fresh set of attempts; None when there is no such run.

    Raises Conflict when the run is not dead: no other final state ever changes.
    """
    row = (await connection.execute(select(runs).where(runs.c.id == run_id).with_for_update())).mappings().one_or_none()
    if row is None:
        return None
    if row["status"] != RunStatus.DEAD:
        raise Conflict(
            f"run {run_id} is {row['status']}; only a dead-lettered run can be redriven: use retry for others"
        )
    return await _redrive(connection, row)


async def redrive_many(
    connection: AsyncConnection, *, app: str | None, flow: str | None, died_before: datetime, most: int
) -> list[Job]:
    """Redrive dead-lettered runs, oldest first; those that another transaction is busy with are left to it."""
    query = select(runs).where(runs.c.status == literal_column("'dead'"), runs.c.finished_at < died_before)
    for column, wanted in ((runs.c.app, app), (runs.c.flow, flow)):
        if wanted is not None:
            query = query.where(column == wanted)
    found = await connection.execute(query.order_by(runs.c.id).limit(most).with_for_update(skip_locked=True))
    return [await _redrive(connection, row) for row in found.mappings().all()]


async def _redrive(connection: AsyncConnection, row: RowMapping) -> Job:
    # The numbers of attempts go on, as they are the fence; the limit moves by as many as the run was given at first.
    allowance = row["max_attempts"] - row["attempts_before"]
    await connection.execute(
        update(runs)
        .where(runs.c.id == row["id"])
        .values(max_attempts=row["attempt"] + allowance, attempts_before=row["attempt"])
    )
    return await requeue_unowned(connection, row, due_at=datetime.now(UTC) + PUBLISH_GRACE)


async def list_attempts(connection: AsyncConnection, *run_ids: str) -> Sequence[RowMapping]:
    """List the tries at these runs, oldest first."""
    query = select(attempts).where(attempts.c.run_id.in_(run_ids)).order_by(attempts.c.run_id, attempts.c.attempt)
    return (await connection.execute(query)).mappings().all()


def mark_published(connection: Connection, jobs: Sequence[Job]) -> None:
    """Note that the broker has these jobs, and drop their outbox rows.

    A call to a run in line is not theirs: it was written after they were sent, and is the relay's to send.
    """
    note_published(connection, jobs)  # runs are locked before their messages, as everywhere
    connection.execute(_DELETE_SENT, [{"run": job.run_id, "number": job.attempt} for job in jobs])


def note_published(connection: Connection, jobs: Sequence[Job]) -> None:
    """Note that the broker has these jobs."""
    connection.execute(_MARK_PUBLISHED, {"ids": [job.run_id for job in jobs], "at": datetime.now(UTC)})


_DELETE_SENT = delete(outbox).where(
    outbox.c.run_id == bindparam("run"), outbox.c.attempt == bindparam("number"), ~outbox.c.called
)
# Locked in order: receipts and relay write the same runs, each in its own.
_SENT = select(runs.c.id).where(runs.c.id.in_(bindparam("ids", expanding=True))).order_by(runs.c.id).with_for_update()
_MARK_PUBLISHED = update(runs).where(runs.c.id.in_(_SENT)).values(published_at=bindparam("at"))


def job_of(row: RowMapping, *, attempt: int) -> Job:
    """Word the message that asks for this attempt at the run."""
    return _job(
        run_id=row["id"],
        app=row["app"],
        lane=Lane(row["lane"]),
        attempt=attempt,
        priority=row["priority"],
        group=row["worker_group"],
    )


def changed(result: CursorResult[Any]) -> int:
    """Tell how many rows a statement changed."""
    return int(result.rowcount)


def _job(*, run_id: str, app: str, lane: Lane, attempt: int, priority: int, group: str | None) -> Job:
    # model_construct: every part is already checked, and this is once per run on the hot path.
    return Job.model_construct(
        version=1, kind=JobKind(str(lane)), run_id=run_id, app=app, attempt=attempt, priority=priority, group=group
    )


def _run_row(run: NewRun, now: datetime, packing: Packing) -> dict[str, Any]:
    return {
        "id": run.id,
        "app": run.app,
        "flow": run.flow,
        "version": run.version,
        "event": run.event,
        "lane": str(run.lane),
        "worker_group": run.worker_group,
        "status": "queued",
        "attempt": 0,
        "max_attempts": run.max_attempts,
        "priority": run.priority,
        "mode": run.mode,
        "backend_config": run.backend_config,
        "payload": packing.pack(run.payload, app=run.app, run_id=run.id),
        "concurrency_key": run.concurrency_key,
        "idempotency_key": run.idempotency_key,
        "request_hash": run.request_hash,
        "retry_of": run.retry_of,
        "parent_run": run.parent_run,
        "depth": run.depth,
        "node": run.node,
        "delivery_id": run.delivery_id,
        "last_seq": 1 + len(run.taken_over),
        "created_at": now,
        "run_at": run.run_at,
    }


def _queued_row(run: NewRun, now: datetime) -> dict[str, Any]:
    lane = f"{run.lane}.{run.worker_group}" if run.worker_group else str(run.lane)
    data = {"lane": lane, "attempt": 1}
    return {"run_id": run.id, "seq": 1, "type": "run_queued", "node_id": None, "time": now, "data": data}


def _taken_over_rows(run: NewRun, packing: Packing) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run.id,
            "seq": seq,
            "type": str(said.type),
            "node_id": said.node_id,
            "time": said.time,
            "data": packing.pack(said.data, app=run.app, run_id=run.id),
        }
        for seq, said in enumerate(run.taken_over, start=2)
    ]


def _outbox_row(run: NewRun, now: datetime) -> dict[str, Any]:
    due = run.run_at if run.run_at is not None and run.run_at > now else now + PUBLISH_GRACE
    return {"run_id": run.id, "attempt": 1, "job": run.job().model_dump(mode="json"), "due_at": due}
