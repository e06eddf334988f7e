"""What one transaction of the writer does: each kind of operation in one statement, whatever their number.

Every function takes its operations with their places in the batch, and puts an answer, or an exception, there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Executable, Row, and_, bindparam, exists, func, insert, select, update

from dispatch.claims import Claim, LastChance, LostClaim
from dispatch.store.blobs import Packing, unpack
from dispatch.store.gates import apps, open_gates, read_asking
from dispatch.store.line import pass_on
from dispatch.store.many import Many
from dispatch.store.parking import park
from dispatch.store.runs import NewRun, attempts, given_up, mark_published, outbox, put_runs, run_events, runs
from dispatch.store.waitpoints import open_ahead
from schemas.errors import Conflict
from schemas.job import Job
from schemas.json import JSONObject
from schemas.outcome import Away, Cancelled, ErrorKind, Failed, Outcome, Parked, Retry, RunError, Succeeded
from schemas.run import EventType, Happening, RunEvent, RunStatus, status_of


@dataclass(frozen=True, slots=True)
class Accepted:
    """The run that answers a request; `created` is false when an idempotency key led to an earlier one."""

    run_id: str
    created: bool
    job: Job | None


@dataclass(frozen=True, slots=True)
class Accept:
    new: NewRun
    tracked_only: bool


@dataclass(frozen=True, slots=True)
class Published:
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Take:
    run_id: str
    owner: str
    executor: str
    #: Nothing else is executed by this owner now.
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Append:
    claim: Claim
    events: Sequence[RunEvent]
    #: They may have come before: those whose numbers are taken are there.
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    claim: Claim
    events: Sequence[RunEvent]
    outcome: Outcome | Away
    #: None is whatever it is: of somebody who settles for others.
    last_seq: int | None


Operation: TypeAlias = Accept | Published | Take | Append | Record
Answers: TypeAlias = dict[int, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch has led to."""

    #: In the order of the operations.
    answers: Sequence[Any]
    events: Sequence[RunEvent]
    #: Runs in line whose turn has come, in lanes that the writer serves.
    called: Sequence[Job]


def write_batch(
    connection: Connection, *, operations: Sequence[Operation], again: bool, served: Collection[str] = ()
) -> Written:
    """Do all operations in the connection's transaction.

    `again` says that an earlier try at this batch may have been committed without the answer arriving.
    """
    answers: Answers = {}
    told: list[RunEvent] = []
    takes, records = _of(Take, operations), _of(Record, operations)
    _accept(connection, _of(Accept, operations), answers, again=again)
    _publish(connection, _of(Published, operations))
    limited = _take(connection, takes, answers)
    gates = open_gates(
        connection, asking=limited, ended=[(one.claim.app, one.claim.concurrency_key) for _, one in records]
    )
    called = _append(connection, _of(Append, operations), records, answers, told, again=again)
    called = [job for job in called if job.queue in served]
    for gate in gates:
        passed = pass_on(connection, gate, served=served)
        _start(connection, _TAKE_ADMITTED, passed.admitted, takes, answers)
        called.extend(passed.called)
    return Written([answers.get(index) for index in range(len(operations))], told, called)


_Kind = TypeVar("_Kind", Accept, Published, Take, Append, Record)


def _of(kind: type[_Kind], operations: Sequence[Operation]) -> list[tuple[int, _Kind]]:
    return [(index, operation) for index, operation in enumerate(operations) if isinstance(operation, kind)]


def _accept(connection: Connection, asked: list[tuple[int, Accept]], answers: Answers, *, again: bool) -> None:
    if not asked:
        return
    if again:
        # The connection may have gone after the commit and before its receipt: then these rows are already there.
        there = set(connection.scalars(_THERE, {"ids": [one.new.id for _, one in asked]}))
        answers.update({index: _created(one) for index, one in asked if one.new.id in there})
        asked = [(index, one) for index, one in asked if index not in answers]
    known = _known_keys(connection, [one.new for _, one in asked])
    fresh: list[Accept] = []
    for index, one in asked:
        key = (one.new.app, one.new.event, one.new.idempotency_key)
        earlier = known.get(key) if one.new.idempotency_key is not None else None
        if earlier is None:
            if one.new.idempotency_key is not None:
                known[key] = (one.new.id, one.new.request_hash)
            fresh.append(one)
            answers[index] = _created(one)
        elif earlier[1] != one.new.request_hash:
            answers[index] = Conflict(
                f"Idempotency-Key {one.new.idempotency_key!r} came before with another request (run {earlier[0]}); "
                "send the same request, or a new key"
            )
        else:
            answers[index] = Accepted(earlier[0], False, None)
    put_runs(connection, [one.new for one in fresh if not one.tracked_only])
    put_runs(connection, [one.new for one in fresh if one.tracked_only], tracked_only=True)


def _created(one: Accept) -> Accepted:
    later = one.new.run_at is not None and one.new.run_at > datetime.now(UTC)
    return Accepted(one.new.id, True, None if later or one.tracked_only else one.new.job())


_THERE = select(runs.c.id).where(runs.c.id.in_(bindparam("ids", expanding=True)))


def _known_keys(
    connection: Connection, new: Sequence[NewRun]
) -> dict[tuple[str, str | None, str | None], tuple[str, str | None]]:
    keys = [run.idempotency_key for run in new if run.idempotency_key is not None]
    if not keys:
        return {}
    found = connection.execute(
        select(runs.c.app, runs.c.event, runs.c.idempotency_key, runs.c.id, runs.c.request_hash).where(
            runs.c.app.in_({run.app for run in new}), runs.c.idempotency_key.in_(keys)
        )
    )
    return {(row.app, row.event, row.idempotency_key): (row.id, row.request_hash) for row in found}


def _publish(connection: Connection, asked: list[tuple[int, Published]]) -> None:
    jobs = [job for _, one in asked for job in one.jobs]
    if jobs:
        mark_published(connection, jobs)


_CLAIMED = (
    runs.c.id,
    runs.c.attempt,
    runs.c.max_attempts,
    runs.c.app,
    runs.c.flow,
    runs.c.version,
    runs.c.event,
    runs.c.lane,
    runs.c.worker_group,
    runs.c.priority,
    runs.c.mode,
    runs.c.backend_config,
    runs.c.payload,
    runs.c.last_seq,
    runs.c.created_at,
    runs.c.cancel_reason,
    runs.c.concurrency_key,
    runs.c.node,
)


def _take(connection: Connection, asked: list[tuple[int, Take]], answers: Answers) -> Sequence[Row[Any]]:
    """Start what no limit bounds; answer the queued runs that one does."""
    ids = list(dict.fromkeys(one.run_id for _, one in asked))
    started = _start(connection, _TAKE_UNLIMITED, ids, asked, answers)
    left = [run_id for run_id in ids if run_id not in started]
    queued = read_asking(connection, left) if left else []
    tried = [row.id for row in queued if row.attempt]
    apart = set(connection.scalars(_LAST_CHANCES, {"ids": tried, "alone": _alone(asked)})) if tried else set()
    answers.update({index: LastChance(one.run_id) for index, one in asked if one.run_id in apart})
    return [row for row in queued if row.id not in apart]


def _alone(asked: list[tuple[int, Take]]) -> list[str]:
    return [one.run_id for _, one in asked if one.alone]


def _start(
    connection: Connection,
    take: Executable,
    run_ids: Sequence[str],
    asked: list[tuple[int, Take]],
    answers: Answers,
) -> set[str]:
    if not run_ids:
        return set()
    now = datetime.now(UTC)
    first = asked[0][1]
    whose = {"by": first.owner, "way": first.executor, "at": now}
    taken = connection.execute(take, {"ids": run_ids, "alone": _alone(asked), **whose})
    rows = unpack(connection, [dict(zip(_CLAIM_FIELDS, row, strict=True)) for row in taken])
    claims = {row["run_id"]: Claim(**row) for row in rows}
    if not claims:
        return set()
    started = set(claims)
    _INSERT_ATTEMPT.execute(
        connection,
        [
            {
                "run_id": claim.run_id,
                "attempt": claim.attempt,
                "worker": first.owner,
                "executor": first.executor,
                "started_at": now,
            }
            for claim in claims.values()
        ],
    )
    for index, one in asked:
        # A doubled message in one batch: the first has the claim, the second finds nothing.
        if (claim := claims.pop(one.run_id, None)) is not None:
            answers[index] = claim
    return started


_INSERT_ATTEMPT = Many(insert(attempts), "run_id", "attempt", "worker", "executor", "started_at")
#: A last attempt at a run that has lost a worker is for those who are alone.
_APART = and_(
    runs.c.attempt + 1 >= runs.c.max_attempts,
    runs.c.id.not_in(bindparam("alone", expanding=True)),
    exists().where(attempts.c.run_id == runs.c.id, attempts.c.outcome == "lost"),
)
_LAST_CHANCES = select(runs.c.id).where(runs.c.id.in_(bindparam("ids", expanding=True)), _APART)
_TAKE_ADMITTED = (
    update(runs)
    .where(runs.c.id.in_(bindparam("ids", expanding=True)), runs.c.status == "queued", ~_APART)
    .values(
        status="running",
        attempt=runs.c.attempt + 1,
        owner=bindparam("by"),
        executor=func.coalesce(runs.c.mode, bindparam("way")),
        started_at=bindparam("at"),
        blocked_by=None,
        called_at=None,
    )
    .returning(*_CLAIMED)
)
# Claims of runs without limits are not counted, and open no gate: only these two conditions are for the others.
_TAKE_UNLIMITED = _TAKE_ADMITTED.where(
    runs.c.concurrency_key.is_(None), ~exists().where(apps.c.name == runs.c.app, apps.c.gated)
)
_CLAIM_FIELDS = ("run_id", *(column.name for column in _CLAIMED[1:]))


def _append(
    connection: Connection,
    appended: list[tuple[int, Append]],
    recorded: list[tuple[int, Record]],
    answers: Answers,
    told: list[RunEvent],
    *,
    again: bool,
) -> list[Job]:
    """Write events, and the ends of attempts; give the jobs to which parked runs have led."""
    asked: list[tuple[int, Append | Record]] = [*appended, *recorded]
    if not asked:
        return []
    held = _held(connection, [one.claim for _, one in asked])
    packing = Packing(connection)
    app_of = {one.claim.run_id: one.claim.app for _, one in asked}
    events: list[RunEvent] = []
    for index, one in asked:
        run = held.get(one.claim.run_id)
        if run is not None and run.attempt == one.claim.attempt:
            # After a commit whose receipt was lost, some are there.
            known = run.last_seq if again or (isinstance(one, Append) and one.repeated) else 0
            events.extend(event for event in one.events if event.seq > known)
        else:
            answers[index] = LostClaim(one.claim.run_id)
    open_ahead(connection, events)
    finals: list[tuple[int, _Final]] = []
    jobs: list[Job] = []
    let_go: set[str] = set()
    for index, one in recorded:
        if index in answers:
            continue
        run = held[one.claim.run_id]
        last_seq = run.last_seq if one.last_seq is None else one.last_seq
        match _unless_cancelled(one.outcome, run.cancel_reason):
            case Away():
                let_go.add(one.claim.run_id)
                answers[index] = RunStatus.RUNNING
            case Parked() as parked:
                parking = park(connection, one.claim, parked, last_seq=last_seq)
                answers[index] = parking.status
                events.extend(parking.events)
                jobs.extend(parking.jobs)
            case outcome:
                finals.append((index, _Final(one.claim, outcome, last_seq)))
    events.extend(_end(connection, finals, answers, packing))
    if let_go:
        connection.execute(_LET_GO, {"ids": list(let_go)})
    if events:
        _INSERT_EVENT.execute(connection, [_event_row(event, app_of[event.run_id], packing) for event in events])
    packing.write()
    ended = {one.claim.run_id for _, one in recorded} - let_go
    still_open = ({one.claim.run_id for index, one in appended if index not in answers} | let_go) - ended
    newest = {event.run_id: event.seq for event in events if event.run_id in still_open}
    if newest:
        connection.execute(_ADVANCE, [{"run": run, "seq": seq} for run, seq in newest.items()])
    told.extend(events)
    return jobs


def _held(connection: Connection, claims: Sequence[Claim]) -> dict[str, Any]:
    """Read, and lock, those of these runs that are still running."""
    ids = list({claim.run_id for claim in claims})
    return {row.id: row for row in connection.execute(_HELD, {"ids": ids})}


def _unless_cancelled(outcome: Outcome | Away, reason: str | None) -> Outcome | Away:
    """End a run that would be parked while someone has asked for it to stop: no worker would be left to hear it."""
    return Cancelled(reason=reason) if reason and isinstance(outcome, Parked) else outcome


_INSERT_EVENT = Many(insert(run_events))
_ADVANCE = update(runs).where(runs.c.id == bindparam("run")).values(last_seq=bindparam("seq"))
_LET_GO = update(runs).where(runs.c.id.in_(bindparam("ids", expanding=True))).values(owner=None)
_HELD = (
    select(runs.c.id, runs.c.attempt, runs.c.last_seq, runs.c.cancel_reason)
    .where(runs.c.id.in_(bindparam("ids", expanding=True)), runs.c.status == "running")
    .order_by(runs.c.id)
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class _Final:
    """An attempt that is over."""

    claim: Claim
    outcome: Outcome
    last_seq: int


def _end(connection: Connection, ends: list[tuple[int, _Final]], answers: Answers, packing: Packing) -> list[RunEvent]:
    if not ends:
        return []
    now = datetime.now(UTC)
    last_events: list[RunEvent] = []
    run_rows, attempt_rows, messages = [], [], []
    for index, one in ends:
        claim = one.claim
        status, result, error = _verdict(claim, one.outcome)
        seq = one.last_seq + 1
        again = status is RunStatus.QUEUED
        last_events.append(RunEvent(claim.run_id, seq, _last_word(claim, status, result, error, now)))
        run_rows.append(
            {
                "run": claim.run_id,
                "to": str(status),
                "said": packing.pack(result, app=claim.app, run_id=claim.run_id),
                "failure": error.model_dump(mode="json") if error and not again else None,
                "seq": seq,
                "over": None if again else now,
            }
        )
        attempt_rows.append(
            {
                "run": claim.run_id,
                "number": claim.attempt,
                "over": now,
                "how": "retry" if again else str(status),
                "why": error.message if error else None,
            }
        )
        if again and isinstance(one.outcome, Retry):
            job = _next_job(claim)
            messages.append(
                {
                    "run_id": claim.run_id,
                    "attempt": job.attempt,
                    "job": job.model_dump(mode="json"),
                    "due_at": now + one.outcome.after,
                }
            )
        answers[index] = status
    _FINISH_RUN.execute(connection, run_rows)
    _FINISH_ATTEMPT.execute(connection, attempt_rows)
    if messages:
        connection.execute(insert(outbox), messages)
        connection.execute(_PAUSE_RUN, [{"run": message["run_id"], "until": message["due_at"]} for message in messages])
    return last_events


_FINISH_RUN = Many(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        status=bindparam("to"),
        result=bindparam("said"),
        error=bindparam("failure"),
        last_seq=bindparam("seq"),
        finished_at=bindparam("over"),
        owner=None,
    )
)
_PAUSE_RUN = update(runs).where(runs.c.id == bindparam("run")).values(run_at=bindparam("until"))
_FINISH_ATTEMPT = Many(
    update(attempts)
    .where(attempts.c.run_id == bindparam("run"), attempts.c.attempt == bindparam("number"))
    .values(outcome=bindparam("how"), reason=bindparam("why"), finished_at=bindparam("over"))
)


def _verdict(claim: Claim, outcome: Outcome) -> tuple[RunStatus, Any, RunError | None]:
    match outcome:
        case Succeeded(result=result):
            return RunStatus.SUCCEEDED, result, None
        case Failed(error=error):
            return status_of(error), None, error
        case Cancelled(reason=reason):
            return RunStatus.CANCELLED, None, RunError(kind=ErrorKind.CANCELLED, message=reason)
        case Retry(reason=reason):
            error = RunError(kind=ErrorKind.LOST, message=reason)
            if claim.attempt < claim.max_attempts:
                return RunStatus.QUEUED, None, error
            return RunStatus.DEAD, None, given_up(claim.attempt, reason)
        case Parked():
            raise AssertionError("a parked run has not ended")


def _last_word(claim: Claim, status: RunStatus, result: Any, error: RunError | None, now: datetime) -> Happening:
    if status is RunStatus.QUEUED:
        queued: JSONObject = {
            "lane": _next_job(claim).queue,
            "attempt": claim.attempt + 1,
            "reason": error.message if error else None,
        }
        return Happening(EventType.RUN_QUEUED, queued, None, now)
    ended: JSONObject = {
        "status": str(status),
        "result": result,
        "error": error.model_dump(mode="json") if error else None,
    }
    return Happening(EventType.RUN_COMPLETED, ended, None, now)


def _next_job(claim: Claim) -> Job:
    return Job.model_validate(
        {
            "kind": claim.lane,
            "run_id": claim.run_id,
            "app": claim.app,
            "attempt": claim.attempt + 1,
            "priority": claim.priority,
            "group": claim.worker_group,
        }
    )


def _event_row(event: RunEvent, app: str, packing: Packing) -> dict[str, Any]:
    said = event.happening
    return {
        "run_id": event.run_id,
        "seq": event.seq,
        "type": said.type,
        "node_id": said.node_id,
        "time": said.time,
        "data": packing.pack(said.data, app=app, run_id=event.run_id),
    }
