"""What is needed to show runs: their events and their documents, for a whole page in two statements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.blobs import unpacked
from dispatch.store.flows import flow_versions
from dispatch.store.runs import run_events
from schemas.json import JSONObject
from schemas.run import EventType, Happening

#: The events that say how nodes stand; logs, progress and data say nothing about it.
_TELLING = (
    EventType.RUN_STARTED,
    EventType.NODE_STARTED,
    EventType.NODE_COMPLETED,
    EventType.NODE_FAILED,
    EventType.NODE_RETRYING,
    EventType.RUN_WAITING,
    EventType.RUN_COMPLETED,
)


async def read_histories(connection: AsyncConnection, run_ids: Iterable[str]) -> Mapping[str, list[Happening]]:
    """Read what happened to the nodes of these runs, in order."""
    ids = list(run_ids)
    query = (
        select(run_events)
        .where(run_events.c.run_id.in_(ids), run_events.c.type.in_([str(kind) for kind in _TELLING]))
        .order_by(run_events.c.run_id, run_events.c.seq)
    )
    histories: dict[str, list[Happening]] = {run_id: [] for run_id in ids}
    for row in await unpacked(connection, (await connection.execute(query)).mappings().all()):
        histories[row["run_id"]].append(Happening(EventType(row["type"]), row["data"], row["node_id"], row["time"]))
    return histories


async def read_documents(
    connection: AsyncConnection, versions: Iterable[tuple[str, str, int]]
) -> Mapping[tuple[str, str, int], JSONObject]:
    """Read documents by app, flow and version."""
    wanted = list(set(versions))
    if not wanted:
        return {}
    columns = (flow_versions.c.app, flow_versions.c.flow, flow_versions.c.version)
    query = select(*columns, flow_versions.c.document).where(tuple_(*columns).in_(wanted))
    return {(row.app, row.flow, row.version): row.document for row in await connection.execute(query)}
