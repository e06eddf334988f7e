"""Reads what a decision about an app's runs asks: what is under way, whose turn it is, who stands in line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, cast

from sqlalchemy import Connection, Row, Select, bindparam, func, literal, literal_column, or_, select, tuple_
from sqlalchemy import Table as SqlTable

from dispatch.admission import MOST, Place, Rate, Waiting
from dispatch.store.gates import PLACE, QUEUED, WAITING, Gate, Scope, apps
from dispatch.store.runs import runs
from dispatch.store.tables import AppStartRow, Instant
from schemas.app import RateLimit

app_starts = cast(SqlTable, AppStartRow.__table__)

#: Rows of the line that are read at once.
_PAGE = 50

_RUNNING = runs.c.status == literal_column("'running'")


class Look:
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

    def asking(self) -> list[Waiting]:
        """List those whose messages have come, by their places."""
        return sorted((_waiting(row, asks=True) for row in self._gate.asking), key=attrgetter("place"))

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
        last = last_start(self._connection, self._gate.app)
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


def last_start(connection: Connection, app: str) -> int:
    """Give the number of an app's newest start under a rate limit; 0 before the first."""
    return connection.execute(_LAST_START, {"of": app}).scalar() or 0


def stalled(connection: Connection) -> list[Scope]:
    """List the apps, and keys, with runs in line that were not called, and whose key, if they have one, has a place."""
    found = connection.execute(_STALLED).all()
    return [(row.app, row.concurrency_key) for row in found]


def _page_of_line(app: str, after: Place | None, next_of_key: Mapping[str, Sequence[str]]) -> Select[Any]:
    query = select(*WAITING).where(runs.c.app == app, QUEUED, runs.c.blocked_by.is_not(None))
    if next_of_key:
        turn = [run_id for first in next_of_key.values() for run_id in first]
        key = runs.c.concurrency_key
        query = query.where(or_(key.is_(None), key.not_in(list(next_of_key)), runs.c.id.in_(turn)))
    if after is not None:
        priority, created_at, run_id = after
        last = tuple_(literal(priority), literal(created_at, Instant()), literal(run_id))
        query = query.where(tuple_(*PLACE) > last)
    return query.order_by(*PLACE).limit(_PAGE)


_COUNT_OF_APP = select(func.count()).where(runs.c.app == bindparam("of"), _RUNNING).select_from(runs)
_COUNT_OF_KEY = _COUNT_OF_APP.where(runs.c.concurrency_key == bindparam("key"))
_FIRST_OF_KEY = (
    select(*WAITING)
    .where(
        runs.c.app == bindparam("of"),
        runs.c.concurrency_key == bindparam("key"),
        QUEUED,
        # One that waits for its time, or for the end of a pause, has no place yet.
        or_(
            runs.c.blocked_by.is_not(None),
            runs.c.run_at.is_(None),
            runs.c.run_at <= bindparam("now", type_=Instant()),
            runs.c.id.in_(bindparam("asking", expanding=True)),
        ),
    )
    .order_by(*PLACE)
    .limit(bindparam("most"))
)
_LINE = (
    select(runs.c.app, runs.c.concurrency_key)
    .where(QUEUED, runs.c.blocked_by.is_not(None), runs.c.called_at.is_(None))
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
