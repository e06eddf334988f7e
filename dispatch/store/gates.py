"""An app's limits, held for one transaction.

Whoever claims a run with a limit, or ends one, opens its gate first: so two transactions never count the same free
place, and none misses a run that the other puts in line. The order in which things are locked is gates by name, then
runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from sqlalchemy import Connection, Row, bindparam, literal_column, or_, select
from sqlalchemy import Table as SqlTable

from dispatch.store.runs import runs
from dispatch.store.tables import AppRow
from dispatch.store.upsert import insert_or
from schemas.app import AppLimits

apps = cast(SqlTable, AppRow.__table__)

#: A run's app and concurrency key: all that says which limits it is under.
Scope: TypeAlias = tuple[str, str | None]

#: Literals, as SQLite asks for before it uses a partial index.
QUEUED = runs.c.status == literal_column("'queued'")
PLACE = (runs.c.priority, runs.c.created_at, runs.c.id)
#: What is read of a run that waits for its turn.
WAITING = (
    *PLACE,
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


_ASKING = select(*WAITING).where(runs.c.id.in_(bindparam("ids", expanding=True)), QUEUED)
_GATES = (
    select(apps.c.name, apps.c.limits, apps.c.gated)
    .where(
        apps.c.name.in_(bindparam("names", expanding=True)),
        or_(apps.c.gated, apps.c.name.in_(bindparam("keyed", expanding=True))),
    )
    .order_by(apps.c.name)
    .with_for_update()
)
