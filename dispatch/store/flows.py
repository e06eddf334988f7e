"""Flows and their versions. A version never changes; a retired flow keeps its history and starts nothing new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import RowMapping, and_, select, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.tables import FlowRow, FlowVersionRow
from dispatch.store.upsert import insert_or
from schemas.json import JSONObject

flows = cast(SqlTable, FlowRow.__table__)
flow_versions = cast(SqlTable, FlowVersionRow.__table__)


@dataclass(frozen=True, slots=True)
class Pushed:
    """The version that a push led to; `created` is false when the newest one already had this content."""

    version: int
    created: bool


async def push_version(
    connection: AsyncConnection, *, app: str, flow: str, document: JSONObject, content_hash: str
) -> Pushed:
    """Add a version, unless the newest has the same content. Brings a retired flow back."""
    now = datetime.now(UTC)
    first = {"app": app, "name": flow, "latest_version": 0, "created_at": now, "updated_at": now, "retired_at": None}
    await connection.execute(insert_or(connection, flows).values(first).on_conflict_do_nothing())
    # The row lock makes pushes of one flow take turns; SQLite's writers do so anyway.
    query = select(flows).where(flows.c.app == app, flows.c.name == flow).with_for_update()
    row = (await connection.execute(query)).mappings().one()
    latest: int = row["latest_version"]
    here = and_(flows.c.app == app, flows.c.name == flow)
    if latest and await _hash_of(connection, app, flow, latest) == content_hash:
        if row["retired_at"] is not None:
            await connection.execute(update(flows).where(here).values(retired_at=None, updated_at=now))
        return Pushed(latest, created=False)
    await connection.execute(
        flow_versions.insert().values(
            app=app, flow=flow, version=latest + 1, content_hash=content_hash, document=document, created_at=now
        )
    )
    await connection.execute(
        update(flows).where(here).values(latest_version=latest + 1, updated_at=now, retired_at=None)
    )
    return Pushed(latest + 1, created=True)


async def read_flow(
    connection: AsyncConnection, app: str, flow: str, *, version: int | None = None
) -> RowMapping | None:
    """Read a flow with one version's document (the newest, unless one is named); None when there is no such thing."""
    wanted = flows.c.latest_version if version is None else version
    query = (
        select(flows, flow_versions.c.version, flow_versions.c.content_hash, flow_versions.c.document)
        .add_columns(flow_versions.c.created_at.label("pushed_at"))
        .join(flow_versions, and_(flow_versions.c.app == flows.c.app, flow_versions.c.flow == flows.c.name))
        .where(flows.c.app == app, flows.c.name == flow, flow_versions.c.version == wanted)
    )
    return (await connection.execute(query)).mappings().one_or_none()


async def read_version(connection: AsyncConnection, app: str, flow: str, version: int) -> JSONObject | None:
    """Read one version's document."""
    query = select(flow_versions.c.document).where(
        flow_versions.c.app == app, flow_versions.c.flow == flow, flow_versions.c.version == version
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else row.document


async def has_version(connection: AsyncConnection, app: str, flow: str, version: int) -> bool:
    return await _hash_of(connection, app, flow, version) is not None


async def list_flows(
    connection: AsyncConnection, app: str, *, cursor: str | None, limit: int, retired: bool = False
) -> tuple[Sequence[RowMapping], str | None]:
    """List an app's flows by name; the cursor is the last name shown. Retired ones only when asked for."""
    query = select(flows).where(flows.c.app == app, flows.c.name > (cursor or "")).order_by(flows.c.name)
    if not retired:
        query = query.where(flows.c.retired_at.is_(None))
    rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
    return rows[:limit], rows[limit - 1]["name"] if len(rows) > limit else None


async def retire_flow(connection: AsyncConnection, app: str, flow: str) -> bool:
    """Let a flow start nothing new; False when there is no such flow. Doing it again changes nothing."""
    known = await connection.scalar(select(flows.c.name).where(flows.c.app == app, flows.c.name == flow))
    if known is None:
        return False
    query = update(flows).where(flows.c.app == app, flows.c.name == flow, flows.c.retired_at.is_(None))
    await connection.execute(query.values(retired_at=datetime.now(UTC)))
    return True


async def _hash_of(connection: AsyncConnection, app: str, flow: str, version: int) -> str | None:
    query = select(flow_versions.c.content_hash).where(
        flow_versions.c.app == app, flow_versions.c.flow == flow, flow_versions.c.version == version
    )
    found: str | None = await connection.scalar(query)
    return found
