"""Every write to a run by a busy process, coalesced: one transaction per batch, one statement per kind.

Accepts, claims, events and results that are asked for in the same instant share a transaction, and so its commit.
A batch that fails is tried again one operation at a time, so that a bad one spoils no other; while the database is
away, operations wait for it instead of failing, up to `patience`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, TypeVar

import structlog
from sqlalchemy import Connection, bindparam, func, insert, select, update

from dispatch.claims import Claim, LostClaim
from dispatch.coalesce import Coalescer
from dispatch.store.runs import (
    NewRun,
    attempts,
    given_up,
    mark_published,
    outbox,
    put_runs,
    run_events,
    runs,
)
from dispatch.store.session import Store, is_outage
from schemas.errors import Conflict, Unavailable
from schemas.job import Job
from schemas.json import JSONObject
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType, Happening, RunEvent, RunStatus, status_of

log = structlog.get_logger()

#: Operations in one transaction: enough to drown the cost of a commit, few enough to keep it in milliseconds.
_BATCH = 200
_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The run that answers a request; `created` is false when an idempotency key led to an earlier one."""

    run_id: str
    created: bool
    job: Job | None


@dataclass(frozen=True, slots=True)
class _Accept:
    new: NewRun
    tracked_only: bool


@dataclass(frozen=True, slots=True)
class _Published:
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class _Take:
    run_id: str
    owner: str
    executor: str


@dataclass(frozen=True, slots=True)
class _Append:
    claim: Claim
    events: Sequence[RunEvent]


@dataclass(frozen=True, slots=True)
class _Record:
    claim: Claim
    events: Sequence[RunEvent]
    outcome: Outcome
    last_seq: int


_Operation: TypeAlias = _Accept | _Published | _Take | _Append | _Record
_Answers: TypeAlias = dict[int, Any]


class RunWriter:
    """One process's pen. `on_events` hears of events once they are committed."""

    def __init__(
        self,
        store: Store,
        *,
        on_events: Callable[[Sequence[RunEvent]], None] = lambda events: None,
        patience: timedelta = timedelta(seconds=30),
    ) -> None:
        self._store = store
        self._on_events = on_events
        self._patience = patience
        self._operations: Coalescer[_Operation, Any] = Coalescer(self._write, most=_BATCH)

    async def accept(self, new: NewRun, *, tracked_only: bool = False) -> Accepted:
        """Write a run and its outbox row; once this returns, the run will not be lost.

        Idempotent by `idempotency_key`. Raises Conflict when the key came with another request before.
        """
        accepted: Accepted = await self._operations.submit(_Accept(new, tracked_only))
        return accepted

    async def published(self, jobs: Sequence[Job]) -> None:
        """Note that the broker has these jobs."""
        await self._operations.submit(_Published(jobs))

    async def take(self, run_id: str, *, owner: str, executor: str) -> Claim | None:
        """Claim a queued run: the only place where one becomes `running`. None when it is not to be had."""
        claim: Claim | None = await self._operations.submit(_Take(run_id, owner, executor))
        return claim

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        """Make events durable, in order. Raises LostClaim when the attempt is no longer the run's newest."""
        await self._operations.submit(_Append(claim, events))

    async def record(self, claim: Claim, outcome: Outcome, *, events: Sequence[RunEvent], last_seq: int) -> RunStatus:
        """Write the end of an attempt with its last events, in one transaction; answer what the run became.

        `last_seq` is the number of the newest event so far, `events` included. A Retry queues the run again, or
        dead-letters it after its last attempt. Raises LostClaim like `append`.
        """
        status: RunStatus = await self._operations.submit(_Record(claim, events, outcome, last_seq))
        return status

    async def settle(self) -> None:
        """Wait until everything asked for has been written."""
        await self._operations.settle()

    async def _write(self, operations: Sequence[_Operation]) -> Sequence[Any]:
        deadline = asyncio.get_running_loop().time() + self._patience.total_seconds()
        pause = _FIRST_PAUSE
        again = False
        while True:
            try:
                return await self._transact(operations, again=again)
            except Exception as error:
                if not is_outage(error):
                    if len(operations) == 1:
                        return [error]
                    return [answer for one in operations for answer in await self._write([one])]
                if asyncio.get_running_loop().time() >= deadline:
                    log.error("store.gave_up", error=str(error), operations=len(operations))
                    raise Unavailable(
                        f"the database did not answer for {self._patience.total_seconds():g} s"
                    ) from error
                log.warning("store.waited", error=str(error).splitlines()[0], operations=len(operations))
                await asyncio.sleep(pause.total_seconds())
                pause = min(pause * 2, _LONGEST_PAUSE)
                again = True

    async def _transact(self, operations: Sequence[_Operation], *, again: bool) -> Sequence[Any]:
        answers: _Answers = {}
        told: list[RunEvent] = []

        def work(connection: Connection) -> None:
            _accept(connection, _of(_Accept, operations), answers, again=again)
            _publish(connection, _of(_Published, operations))
            _take(connection, _of(_Take, operations), answers)
            _append(connection, _of(_Append, operations), _of(_Record, operations), answers, told)

        await self._store.transact(work)
        if told:
            self._on_events(told)
        return [answers.get(index) for index in range(len(operations))]


_Kind = TypeVar("_Kind", _Accept, _Published, _Take, _Append, _Record)


def _of(kind: type[_Kind], operations: Sequence[_Operation]) -> list[tuple[int, _Kind]]:
    return [(index, operation) for index, operation in enumerate(operations) if isinstance(operation, kind)]


def _accept(connection: Connection, asked: list[tuple[int, _Accept]], answers: _Answers, *, again: bool) -> None:
    if not asked:
        return
    if again:
        # The connection may have gone after the commit and before its receipt: then these rows are already there.
        there = set(connection.scalars(_THERE, {"ids": [one.new.id for _, one in asked]}))
        answers.update(
            {index: Accepted(one.new.id, True, one.new.job()) for index, one in asked if one.new.id in there}
        )
        asked = [(index, one) for index, one in asked if index not in answers]
    known = _known_keys(connection, [one.new for _, one in asked])
    fresh: list[_Accept] = []
    for index, one in asked:
        key = (one.new.app, one.new.event, one.new.idempotency_key)
        earlier = known.get(key) if one.new.idempotency_key is not None else None
        if earlier is None:
            if one.new.idempotency_key is not None:
                known[key] = (one.new.id, one.new.request_hash)
            fresh.append(one)
            later = one.new.run_at is not None and one.new.run_at > datetime.now(UTC)
            answers[index] = Accepted(one.new.id, True, None if later or one.tracked_only else one.new.job())
        elif earlier[1] != one.new.request_hash:
            answers[index] = Conflict(
                f"Idempotency-Key {one.new.idempotency_key!r} came before with another request (run {earlier[0]}); "
                "send the same request, or a new key"
            )
        else:
            answers[index] = Accepted(earlier[0], False, None)
    put_runs(connection, [one.new for one in fresh if not one.tracked_only])
    put_runs(connection, [one.new for one in fresh if one.tracked_only], tracked_only=True)


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


def _publish(connection: Connection, asked: list[tuple[int, _Published]]) -> None:
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
)


def _take(connection: Connection, asked: list[tuple[int, _Take]], answers: _Answers) -> None:
    if not asked:
        return
    now = datetime.now(UTC)
    first = asked[0][1]
    ids = list(dict.fromkeys(one.run_id for _, one in asked))
    named = {"ids": ids, "by": first.owner, "way": first.executor, "at": now}
    taken = connection.execute(_TAKE, named)
    claims = {row[0]: Claim(**dict(zip(_CLAIM_FIELDS, row, strict=True))) for row in taken}
    if not claims:
        return
    connection.execute(
        _INSERT_ATTEMPT,
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
        answers[index] = claims.pop(one.run_id, None)


_INSERT_ATTEMPT = insert(attempts)
_TAKE = (
    update(runs)
    .where(runs.c.id.in_(bindparam("ids", expanding=True)), runs.c.status == "queued")
    .values(
        status="running",
        attempt=runs.c.attempt + 1,
        owner=bindparam("by"),
        executor=func.coalesce(runs.c.mode, bindparam("way")),
        started_at=bindparam("at"),
    )
    .returning(*_CLAIMED)
)
_CLAIM_FIELDS = ("run_id", *(column.name for column in _CLAIMED[1:]))


def _append(
    connection: Connection,
    appended: list[tuple[int, _Append]],
    recorded: list[tuple[int, _Record]],
    answers: _Answers,
    told: list[RunEvent],
) -> None:
    asked: list[tuple[int, _Append | _Record]] = [*appended, *recorded]
    if not asked:
        return
    held = _held(connection, [one.claim for _, one in asked])
    events: list[RunEvent] = []
    for index, one in asked:
        if one.claim.run_id in held and held[one.claim.run_id] == one.claim.attempt:
            events.extend(one.events)
        else:
            answers[index] = LostClaim(one.claim.run_id)
    ends = [(index, one) for index, one in recorded if index not in answers]
    events.extend(_end(connection, ends, answers))
    if events:
        connection.execute(_INSERT_EVENT, [_event_row(event) for event in events])
    still_open = {one.claim.run_id for index, one in appended if index not in answers} - {
        one.claim.run_id for _, one in ends
    }
    newest = {event.run_id: event.seq for event in events if event.run_id in still_open}
    if newest:
        connection.execute(_ADVANCE, [{"run": run, "seq": seq} for run, seq in newest.items()])
    told.extend(events)


def _held(connection: Connection, claims: Sequence[Claim]) -> dict[str, int]:
    """Read, and lock, which of these runs are still running, and at which attempt."""
    ids = list({claim.run_id for claim in claims})
    return {row.id: row.attempt for row in connection.execute(_HELD, {"ids": ids})}


_INSERT_EVENT = insert(run_events)
_ADVANCE = update(runs).where(runs.c.id == bindparam("run")).values(last_seq=bindparam("seq"))
_HELD = (
    select(runs.c.id, runs.c.attempt)
    .where(runs.c.id.in_(bindparam("ids", expanding=True)), runs.c.status == "running")
    .order_by(runs.c.id)
    .with_for_update()
)


def _end(connection: Connection, ends: list[tuple[int, _Record]], answers: _Answers) -> list[RunEvent]:
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
                "said": result,
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
    connection.execute(_FINISH_RUN, run_rows)
    connection.execute(_FINISH_ATTEMPT, attempt_rows)
    if messages:
        connection.execute(insert(outbox), messages)
    return last_events


_FINISH_RUN = (
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
_FINISH_ATTEMPT = (
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


def _event_row(event: RunEvent) -> dict[str, Any]:
    said = event.happening
    return {
        "run_id": event.run_id,
        "seq": event.seq,
        "type": said.type,
        "node_id": said.node_id,
        "time": said.time,
        "data": said.data,
    }
