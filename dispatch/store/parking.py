"""Parks a run: in one transaction it stops being running, what it waits for is written, and what it calls is accepted.

Answers that have come already send it on at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from dispatch.claims import Claim
from dispatch.store.children import child_of
from dispatch.store.runs import attempts, job_of, outbox, put_runs, runs
from dispatch.store.upsert import insert_or
from dispatch.store.waitpoints import take_kept, waitpoints
from schemas.job import Job
from schemas.json import JSONObject, JSONValue
from schemas.outcome import Parked, RunError, Wait, WaitKind
from schemas.run import EventType, Happening, RunEvent, RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    """What has become of a run that was to be parked."""

    status: RunStatus
    events: Sequence[RunEvent]
    #: What is to be published now: the run itself, if it goes on at once, and the runs that it called.
    jobs: Sequence[Job]


def park(connection: Connection, claim: Claim, parked: Parked, *, last_seq: int) -> Parking:
    """Park a run whose row the caller has locked, and whose attempt is its newest."""
    now = datetime.now(UTC)
    run = connection.execute(select(runs).where(runs.c.id == claim.run_id)).mappings().one()
    jobs = [job for wait in parked.waits for job in _open(connection, run, wait, now)]
    said = [_waiting(connection, parked), *map(_resumed, take_kept(connection, claim.run_id))]
    goes_on = len(said) > 1
    events = [RunEvent(claim.run_id, last_seq + number, one) for number, one in enumerate(said, start=1)]
    connection.execute(
        update(runs)
        .where(runs.c.id == claim.run_id)
        .values(
            status=str(RunStatus.QUEUED if goes_on else RunStatus.WAITING),
            run_at=None if goes_on else parked.until,
            last_seq=events[-1].seq,
            owner=None,
            published_at=None,
            # The next attempt is not one more failure: the allowance moves along.
            max_attempts=run["max_attempts"] + 1,
            attempts_before=run["attempts_before"] + 1,
        )
    )
    connection.execute(
        update(attempts)
        .where(attempts.c.run_id == claim.run_id, attempts.c.attempt == claim.attempt)
        .values(finished_at=now, outcome=str(RunStatus.WAITING), reason=parked.reason)
    )
    if goes_on:
        job = job_of(run, attempt=claim.attempt + 1)
        message = {"attempt": job.attempt, "job": job.model_dump(mode="json"), "due_at": now}
        connection.execute(insert(outbox).values(run_id=claim.run_id, **message))
        jobs.append(job)
    return Parking(status=RunStatus.QUEUED if goes_on else RunStatus.WAITING, events=events, jobs=jobs)


def _waiting(connection: Connection, parked: Parked) -> Happening:
    children = _children(connection, [wait for wait in parked.waits if wait.kind is WaitKind.CHILD])
    waits: list[JSONValue] = [_shown(wait, children.get(wait.waitpoint)) for wait in parked.waits]
    return Happening(EventType.RUN_WAITING, {"reason": parked.reason, "until": _text(parked.until), "waits": waits})


def _shown(wait: Wait, child: str | None) -> JSONObject:
    shown: JSONObject = {
        "node_id": wait.node_id,
        "kind": str(wait.kind),
        "until": _text(wait.until),
        "url": wait.url,
    }
    return shown if child is None else {**shown, "run_id": child}


def _children(connection: Connection, waits: Sequence[Wait]) -> Mapping[str | None, str]:
    """Give the runs whose ends are awaited, by their waitpoints."""
    if not waits:
        return {}
    mine = (waitpoints.c.id.in_([wait.waitpoint for wait in waits]), waitpoints.c.child_run.is_not(None))
    found = connection.execute(select(waitpoints.c.id, waitpoints.c.child_run).where(*mine))
    return {row.id: row.child_run for row in found}


def _resumed(said: JSONObject) -> Happening:
    return Happening(EventType.RUN_RESUMED, said)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _open(connection: Connection, run: RowMapping, wait: Wait, now: datetime) -> list[Job]:
    """Write what a node waits for, unless an earlier attempt has; start the run that it calls, once."""
    if wait.waitpoint is None:
        return []
    row: dict[str, Any] = {
        "node_id": wait.node_id,
        "kind": str(wait.kind),
        "message": wait.message,
        "expires_at": wait.until,
    }
    put = insert_or(connection, waitpoints).values(id=wait.waitpoint, run_id=run["id"], opened_at=now, **row)
    new = connection.execute(put.on_conflict_do_nothing().returning(waitpoints.c.id)).first() is not None
    if not new:
        mine = (waitpoints.c.id == wait.waitpoint, waitpoints.c.run_id == run["id"])
        connection.execute(update(waitpoints).where(*mine).values(row))
        return []
    if wait.kind is not WaitKind.CHILD or wait.child is None:
        return []
    child = child_of(connection, run, wait.node_id, wait.child)
    called = update(waitpoints).where(waitpoints.c.id == wait.waitpoint)
    if isinstance(child, RunError):
        # Kept like an answer that came early, so that the node hears of it.
        error: JSONObject = {"status": "failed", "result": None, "error": child.model_dump(mode="json")}
        connection.execute(called.values(answered_at=now, answer=error))
        return []
    connection.execute(called.values(child_run=child.id))
    return put_runs(connection, [child])
