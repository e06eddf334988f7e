"""What the runs of an app share over all workers: the state of circuits, and results that are kept for a while.

The rows are the workers' to read and write; what stands in them is theirs to understand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar, cast

from sqlalchemy import Connection, delete, select, update
from sqlalchemy import Table as SqlTable

from dispatch.store.tables import CircuitRow, KeptResultRow
from dispatch.store.upsert import insert_or
from schemas.json import JSONObject

circuits = cast(SqlTable, CircuitRow.__table__)
kept_results = cast(SqlTable, KeptResultRow.__table__)

Answer = TypeVar("Answer")

#: Circuits that nobody has changed for so long are closed ones.
CIRCUITS_KEPT = timedelta(days=2)


def read_circuit(connection: Connection, key: str) -> JSONObject | None:
    state: JSONObject | None = connection.scalar(select(circuits.c.state).where(circuits.c.id == _id(key)))
    return state


def change_circuit(
    connection: Connection,
    *,
    key: str,
    change: Callable[[JSONObject | None], tuple[JSONObject, Answer]],
    now: datetime,
) -> Answer:
    """Change a circuit under its lock: `change` gets its state, None where nothing is known, and gives the new one."""
    # The row is there before it is read, so that two first failures don't overwrite each other.
    new = insert_or(connection, circuits).values(id=_id(key), state={}, changed_at=now)
    connection.execute(new.on_conflict_do_nothing())
    here = circuits.c.id == _id(key)
    before: JSONObject = connection.execute(select(circuits.c.state).where(here).with_for_update()).scalar_one()
    after, answer = change(before or None)
    if after != before:
        connection.execute(update(circuits).where(here).values(state=after, changed_at=now))
    return answer


def read_result(connection: Connection, key: str, *, now: datetime) -> JSONObject | None:
    query = select(kept_results.c.outputs).where(kept_results.c.id == _id(key), kept_results.c.expires_at > now)
    outputs: JSONObject | None = connection.scalar(query)
    return outputs


def keep_result(
    connection: Connection, *, key: str, app: str, node_type: str, outputs: JSONObject, expires_at: datetime
) -> None:
    row = {"app": app, "node_type": node_type, "outputs": outputs, "expires_at": expires_at}
    put = insert_or(connection, kept_results).values(id=_id(key), **row)
    connection.execute(put.on_conflict_do_update(index_elements=["id"], set_=row))


def forget_results(connection: Connection, *, app: str, node_type: str | None = None) -> int:
    """Drop what is kept of an app, or of one node type in it; answer how many results that was."""
    query = delete(kept_results).where(kept_results.c.app == app)
    if node_type is not None:
        query = query.where(kept_results.c.node_type == node_type)
    return int(connection.execute(query).rowcount)


def prune_shared(connection: Connection, *, now: datetime, most: int) -> int:
    """Drop up to `most` each of results that are stale and of circuits that have long been quiet."""
    stale = select(kept_results.c.id).where(kept_results.c.expires_at <= now).limit(most)
    quiet = select(circuits.c.id).where(circuits.c.changed_at < now - CIRCUITS_KEPT).limit(most)
    gone = connection.execute(delete(kept_results).where(kept_results.c.id.in_(stale))).rowcount
    return gone + connection.execute(delete(circuits).where(circuits.c.id.in_(quiet))).rowcount


def _id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
