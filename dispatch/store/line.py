"""The line in which runs wait for their app's limits: who may start is decided here, in the claim's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, update

from dispatch.admission import Decision, decide
from dispatch.store.gates import QUEUED, Gate
from dispatch.store.runs import PUBLISH_GRACE, job_of, outbox, runs
from dispatch.store.turns import Look, app_starts, last_start
from dispatch.store.upsert import insert_or
from schemas.job import Job


@dataclass(frozen=True, slots=True)
class Passed:
    """What a gate let through."""

    admitted: Sequence[str]
    #: Calls in lanes that the caller serves.
    called: Sequence[Job]
    #: All calls, to any lane and at any time.
    calls: int


def pass_on(
    connection: Connection,
    gate: Gate,
    *,
    whole: bool = False,
    anew: bool = False,
    served: Collection[str] = (),
) -> Passed:
    """Decide who may start, once this transaction's ends are written; put off the others, and call those in line.

    Admitted runs are left for the caller to start. `served` names the lanes whose calls the caller will hear by
    itself: the relay gets them only if nothing comes of that. `whole` goes along the whole line of an app without
    limits; `anew` calls again who was called already.
    """
    now = datetime.now(UTC)
    look = Look(connection, gate, now, anew=anew)
    decision = decide(
        look.along() if gate.gated or whole else look.heads(),
        look.asking(),
        limits=gate.limits,
        running=look.running() if gate.limits.max_concurrency is not None else 0,
        next_of_key=look.next_of_key,
        rate=look.rate(gate.limits.rate_limit) if gate.limits.rate_limit is not None else None,
        now=now,
    )
    _put_off(connection, decision)
    if gate.limits.rate_limit is not None and decision.admitted:
        _note_starts(connection, gate, len(decision.admitted), now)
    if decision.admitted:
        connection.execute(_FORGET_MESSAGES, {"ids": decision.admitted})
    called = _call(connection, look.seen, decision, now, served)
    return Passed(decision.admitted, called, len(decision.called))


def free(connection: Connection, gates: Iterable[Gate]) -> None:
    """Give places that have come free to those in line, who are told by the relay."""
    for gate in gates:
        pass_on(connection, gate)


def _put_off(connection: Connection, decision: Decision) -> None:
    if not decision.blocked:
        return
    # Their messages have done their work.
    connection.execute(_FORGET_MESSAGES, {"ids": list(decision.blocked)})
    connection.execute(_BLOCK, [{"run": run_id, "why": why} for run_id, why in decision.blocked.items()])


def _call(
    connection: Connection, seen: dict[str, Row[Any]], decision: Decision, now: datetime, served: Collection[str]
) -> list[Job]:
    if not decision.called:
        return []
    connection.execute(_CALL, {"ids": list(decision.called), "at": now})
    heard = []
    for run_id, due_at in decision.called.items():
        row = seen[run_id]
        job = job_of(row._mapping, attempt=row.attempt + 1)
        if due_at <= now and job.queue in served:
            heard.append(job)
            due_at = now + PUBLISH_GRACE
        message = {"job": job.model_dump(mode="json"), "due_at": due_at, "called": True}
        put = insert_or(connection, outbox).values(run_id=run_id, attempt=job.attempt, **message)
        connection.execute(put.on_conflict_do_update(index_elements=["run_id", "attempt"], set_=message))
    return heard


def _note_starts(connection: Connection, gate: Gate, number: int, now: datetime) -> None:
    assert gate.limits.rate_limit is not None
    last = last_start(connection, gate.app)
    new = [{"app": gate.app, "number": last + 1 + more, "at": now} for more in range(number)]
    connection.execute(insert(app_starts), new)
    connection.execute(_FORGET_STARTS, {"of": gate.app, "low": last + number - gate.limits.rate_limit.runs})


_FORGET_STARTS = delete(app_starts).where(app_starts.c.app == bindparam("of"), app_starts.c.number <= bindparam("low"))
_FORGET_MESSAGES = delete(outbox).where(outbox.c.run_id.in_(bindparam("ids", expanding=True)))
_BLOCK = update(runs).where(runs.c.id == bindparam("run"), QUEUED).values(blocked_by=bindparam("why"), called_at=None)
_CALL = update(runs).where(runs.c.id.in_(bindparam("ids", expanding=True))).values(called_at=bindparam("at"))
