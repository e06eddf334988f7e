"""The line in which runs wait for their app's limits: who may start is decided here, in the claim's transaction.

A gate is one app, held for the rest of the transaction. Whoever claims a run with a limit, or ends one, opens its
gate first: so two transactions never count the same free place, and none misses a run that the other puts in line.
The order in which things are locked is gates by name, then runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeAlias, cast

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy import Table as SqlTable

from dispatch.admission import MOST, Decision, Place, Rate, Waiting, decide
from dispatch.store.runs import PUBLISH_GRACE, job_of, outbox, runs
from dispatch.store.tables import AppRow, AppStartRow, Instant
from dispatch.store.upsert import insert_or
from schemas.app import AppLimits, RateLimit
from schemas.job import Job

apps = cast(SqlTable, AppRow.__table__)
app_starts = cast(SqlTable, AppStartRow.__table__)

#: Rows of the line that are read at once.
_PAGE = 50

#: A run's app and concurrency key: all that says which limits it is under.
Scope: TypeAlias = tuple[str, str | None]

_QUEUED = runs.c.status == literal_column("'queued'")
_RUNNING = runs.c.status == literal_column("'running'")
_PLACE = (runs.c.priority, runs.c.created_at, runs.c.id)
_WAITING = (
    *_PLACE,
    runs.c.app,
    runs.c.concurrency_key,
    runs.c.blocked_by,
    runs.c.called_at,
    runs.c.lane,
    runs.c.worker_group,
    runs.c.attempt,
)


@dataclass(slots=True)
class Gate:
    """An app's limits, and what this transaction has to do with them."""

    app: str
    limits: AppLimits
    gated: bool
    #: Queued runs whose messages have come.
    asking: list[Row[Any]] = field(default_factory=list)
    #: Keys under which runs ask, or have ended.
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Passed:
    """What a gate let through."""

    admitted: Sequence[str]
    #: Calls in lanes that the caller serves.
    called: Sequence[Job]
    #: All calls, to any lane and at any time.
    calls: int


def read_asking(connection: Connection, run_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Read those of these runs that are queued."""
    return cast(Sequence[Row[Any]], connection.execute(_ASKING, {"ids": list(run_ids)}).all())


def open_gates(
    connection: Connection,
    *,
    asking: Sequence[Row[Any]] = (),
    ended: Iterable[Scope] = (),
    always: bool = False,
) -> list[Gate]:
    """Lock what limits these runs, by name; runs without any limit lead to no gate, unless there is `always` one."""
    ended = list(ended)
    keyed = {app for app, key in ended if key is not None or always} | {row.app for row in asking}
    names = keyed | {app for app, _ in ended}
    if not names:
        return []
    found = connection.execute(_GATES, {"names": list(names), "keyed": list(keyed)}).all()
    gates = {row.name: Gate(row.name, AppLimits.model_validate(row.limits or {}), row.gated) for row in found}
    for app in sorted(keyed - gates.keys()):  # an app without a row: a flow was never pushed to it by the API
        new: dict[str, Any] = {"name": app, "created_at": datetime.now(UTC), "limits": {}}
        connection.execute(insert_or(connection, apps).values(new).on_conflict_do_nothing())
        gates[app] = Gate(app, AppLimits(), False)
    for row in asking:
        gates[row.app].asking.append(row)
    for app, key in [*ended, *((row.app, row.concurrency_key) for row in asking)]:
        if key is not None and app in gates:
            gates[app].keys.add(key)
    return [gates[app] for app in sorted(gates)]


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
    look = _Look(connection, gate, now, anew=anew)
    asking = sorted((_waiting(row, asks=True) for row in gate.asking), key=attrgetter("place"))
    decision = decide(
        look.along() if gate.gated or whole else look.heads(),
        asking,
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


def stalled(connection: Connection) -> list[Scope]:
    """List the apps, and keys, with runs in line that were not called, and whose key, if they have one, has a place."""
    found = connection.execute(_STALLED).all()
    return [(row.app, row.concurrency_key) for row in found]


class _Look:
    """What the decision asks about one app, read when it asks."""

    def __init__(self, connection: Connection, gate: Gate, now: datetime, *, anew: bool) -> None:
        self._connection = connection
        self._gate = gate
        self._now = now
        self._anew = anew
        self._next: dict[str, list[str]] = {}
        self._asking = [row.id for row in gate.asking]
        #: Every row that was met, by id.
        self.seen = {row.id: row for row in gate.asking}

    def running(self) -> int:
        """Count the app's runs that are under way."""
        return self._connection.execute(_COUNT_OF_APP, {"of": self._gate.app}).scalar_one()

    def next_of_key(self, key: str) -> list[str]:
        """Name the runs under this key whose turn it is: as many of the first as the key has places."""
        if key not in self._next:
            self._next[key] = [row.id for row in self._first_of(key)]
        return self._next[key]

    def heads(self) -> list[Waiting]:
        """List the runs whose turn it is under any key that is concerned."""
        found: dict[str, Waiting] = {}
        for key in sorted(self._gate.keys):
            first = self._first_of(key)
            self._next[key] = [row.id for row in first]
            found.update((row.id, self._met(row)) for row in first if row.id not in self._asking)
        return sorted(found.values(), key=attrgetter("place"))

    def along(self) -> Iterator[Waiting]:
        """Go along the whole line, but past those of whose key it is known that it is not their turn."""
        after: Place | None = None
        while True:
            rows = self._connection.execute(_page_of_line(self._gate.app, after, self._next)).all()
            for row in rows:
                if row.id not in self._asking:
                    yield self._met(row)
            if len(rows) < _PAGE:
                return
            last = rows[-1]
            after = (last.priority, last.created_at, last.id)

    def rate(self, limit: RateLimit) -> Rate:
        last = self._connection.execute(_LAST_START, {"of": self._gate.app}).scalar() or 0
        low = last + 1 - limit.runs
        rows = self._connection.execute(_STARTS, {"of": self._gate.app, "low": low, "high": low + MOST})
        return Rate(limit=limit, following=last + 1, starts={row.number: row.at for row in rows})

    def _first_of(self, key: str) -> Sequence[Row[Any]]:
        busy = self._connection.execute(_COUNT_OF_KEY, {"of": self._gate.app, "key": key}).scalar_one()
        places = self._gate.limits.key_concurrency - busy
        if places <= 0:
            return []
        named = {"of": self._gate.app, "key": key, "now": self._now, "asking": self._asking}
        named["most"] = min(places, MOST)
        return cast(Sequence[Row[Any]], self._connection.execute(_FIRST_OF_KEY, named).all())

    def _met(self, row: Row[Any]) -> Waiting:
        self.seen[row.id] = row
        # A run that never asked in vain is not in line: its first message is still to come.
        called = row.blocked_by is None or (row.called_at is not None and not self._anew)
        return _waiting(row, asks=False, called=called)


def _waiting(row: Row[Any], *, asks: bool, called: bool = False) -> Waiting:
    place = (row.priority, row.created_at, row.id)
    return Waiting(run_id=row.id, key=row.concurrency_key, place=place, asks=asks, called=called)


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
    last = connection.execute(_LAST_START, {"of": gate.app}).scalar() or 0
    new = [{"app": gate.app, "number": last + 1 + more, "at": now} for more in range(number)]
    connection.execute(insert(app_starts), new)
    connection.execute(_FORGET_STARTS, {"of": gate.app, "low": last + number - gate.limits.rate_limit.runs})


def _page_of_line(app: str, after: Place | None, next_of_key: Mapping[str, Sequence[str]]) -> Select[Any]:
    query = select(*_WAITING).where(runs.c.app == app, _QUEUED, runs.c.blocked_by.is_not(None))
    if next_of_key:
        turn = [run_id for first in next_of_key.values() for run_id in first]
        key = runs.c.concurrency_key
        query = query.where(or_(key.is_(None), key.not_in(list(next_of_key)), runs.c.id.in_(turn)))
    if after is not None:
        priority, created_at, run_id = after
        last = tuple_(literal(priority), literal(created_at, Instant()), literal(run_id))
        query = query.where(tuple_(*_PLACE) > last)
    return query.order_by(*_PLACE).limit(_PAGE)


_ids: Callable[[str], Any] = lambda name: bindparam(name, expanding=True)  # noqa: E731

_ASKING = select(*_WAITING).where(runs.c.id.in_(_ids("ids")), _QUEUED)
_GATES = (
    select(apps.c.name, apps.c.limits, apps.c.gated)
    .where(apps.c.name.in_(_ids("names")), or_(apps.c.gated, apps.c.name.in_(_ids("keyed"))))
    .order_by(apps.c.name)
    .with_for_update()
)
_COUNT_OF_APP = select(func.count()).where(runs.c.app == bindparam("of"), _RUNNING).select_from(runs)
_COUNT_OF_KEY = _COUNT_OF_APP.where(runs.c.concurrency_key == bindparam("key"))
_FIRST_OF_KEY = (
    select(*_WAITING)
    .where(
        runs.c.app == bindparam("of"),
        runs.c.concurrency_key == bindparam("key"),
        _QUEUED,
        # One that waits for its time, or for the end of a pause, has no place yet.
        or_(
            runs.c.blocked_by.is_not(None),
            runs.c.run_at.is_(None),
            runs.c.run_at <= bindparam("now", type_=Instant()),
            runs.c.id.in_(_ids("asking")),
        ),
    )
    .order_by(*_PLACE)
    .limit(bindparam("most"))
)
_LINE = (
    select(runs.c.app, runs.c.concurrency_key)
    .where(_QUEUED, runs.c.blocked_by.is_not(None), runs.c.called_at.is_(None))
    .group_by(runs.c.app, runs.c.concurrency_key)
    .subquery()
)
_BUSY = (
    select(func.count())
    .where(runs.c.app == _LINE.c.app, runs.c.concurrency_key == _LINE.c.concurrency_key, _RUNNING)
    .scalar_subquery()
)
_STALLED = (
    select(_LINE)
    .join(apps, apps.c.name == _LINE.c.app)
    .where(or_(_LINE.c.concurrency_key.is_(None), apps.c.key_concurrency > _BUSY))
    .limit(200)
)
_LAST_START = select(func.max(app_starts.c.number)).where(app_starts.c.app == bindparam("of"))
_STARTS = select(app_starts).where(
    app_starts.c.app == bindparam("of"), app_starts.c.number.between(bindparam("low"), bindparam("high"))
)
_FORGET_STARTS = delete(app_starts).where(app_starts.c.app == bindparam("of"), app_starts.c.number <= bindparam("low"))
_FORGET_MESSAGES = delete(outbox).where(outbox.c.run_id.in_(_ids("ids")))
_BLOCK = update(runs).where(runs.c.id == bindparam("run")).values(blocked_by=bindparam("why"), called_at=None)
_CALL = update(runs).where(runs.c.id.in_(_ids("ids"))).values(called_at=bindparam("at"))
