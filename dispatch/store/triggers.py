"""Events, which start flows; schedules, which say when; deliveries, the webhook requests that came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import RowMapping, Select, and_, delete, func, select, tuple_, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.flows import flows
from dispatch.store.keys import apps
from dispatch.store.runs import changed, runs
from dispatch.store.tables import DeliveryRow, EventRow, ScheduleRow
from dispatch.store.upsert import insert_or
from schemas.app import AppLimits
from schemas.event import EventKind
from schemas.json import JSONObject

events = cast(SqlTable, EventRow.__table__)
schedules = cast(SqlTable, ScheduleRow.__table__)
deliveries = cast(SqlTable, DeliveryRow.__table__)

_LIVE = ("queued", "running", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An event and what it starts, as one statement reads it."""

    app: str
    event: str
    kind: EventKind
    flow: str
    #: The version the event is fixed to, or else the newest.
    version: int
    config: JSONObject
    created_at: datetime
    paused: bool
    retired: bool
    limits: AppLimits


async def put_event(
    connection: AsyncConnection,
    *,
    app: str,
    name: str,
    kind: EventKind,
    flow: str,
    version: int | None,
    config: JSONObject,
    path: str | None,
) -> bool:
    """Create or change an event; True when it is new. A changed event stays paused if it was."""
    now = datetime.now(UTC)
    here = and_(events.c.app == app, events.c.name == name)
    said = {"kind": str(kind), "flow": flow, "version": version, "config": config, "path": path, "updated_at": now}
    new = {"app": app, "name": name, "created_at": now, "paused_at": None, **said}
    made = await connection.execute(insert_or(connection, events).values(new).on_conflict_do_nothing())
    if changed(made):
        return True
    await connection.execute(update(events).where(here).values(**said))
    return False


async def read_event(connection: AsyncConnection, app: str, name: str) -> RowMapping | None:
    """Read an event with its schedule's `next_at` and `last_at`."""
    query = _events().where(events.c.app == app, events.c.name == name)
    return (await connection.execute(query)).mappings().one_or_none()


async def list_events(
    connection: AsyncConnection, app: str, *, kind: EventKind | None, cursor: str | None, limit: int
) -> tuple[Sequence[RowMapping], str | None]:
    """List an app's events by name; the cursor is the last name shown."""
    query = _events().where(events.c.app == app, events.c.name > (cursor or "")).order_by(events.c.name)
    if kind is not None:
        query = query.where(events.c.kind == str(kind))
    rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
    return rows[:limit], rows[limit - 1]["name"] if len(rows) > limit else None


async def delete_event(connection: AsyncConnection, app: str, name: str) -> bool:
    """Remove an event and its schedule; its runs stay. False when there is none."""
    await connection.execute(delete(schedules).where(schedules.c.app == app, schedules.c.event == name))
    gone = await connection.execute(delete(events).where(events.c.app == app, events.c.name == name))
    return changed(gone) > 0


async def set_paused(connection: AsyncConnection, app: str, name: str, *, paused: bool) -> None:
    """Pause or resume an event; a pause that is under way keeps its beginning."""
    query = update(events).where(events.c.app == app, events.c.name == name)
    if paused:
        query = query.where(events.c.paused_at.is_(None))
    await connection.execute(query.values(paused_at=datetime.now(UTC) if paused else None))


async def read_target(connection: AsyncConnection, app: str, event: str) -> Target | None:
    """Read what an event starts."""
    query = _targets().where(events.c.app == app, events.c.name == event)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _target(row)


async def find_webhooks(connection: AsyncConnection, app: str, path: str) -> list[Target]:
    """Find every event that listens on a path, by name."""
    query = _targets().where(events.c.app == app, events.c.path == path, events.c.kind == str(EventKind.WEBHOOK))
    rows = (await connection.execute(query.order_by(events.c.name))).mappings()
    return [_target(row) for row in rows]


# Schedules


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule that is due, and what it starts."""

    next_at: datetime
    target: Target


async def set_next(connection: AsyncConnection, app: str, event: str, next_at: datetime | None) -> None:
    """Say when a schedule is due next; None: not until someone says otherwise."""
    row = {"app": app, "event": event, "next_at": next_at, "last_at": None}
    await connection.execute(
        insert_or(connection, schedules)
        .values(row)
        .on_conflict_do_update(index_elements=["app", "event"], set_={"next_at": next_at})
    )


async def drop_schedule(connection: AsyncConnection, app: str, event: str) -> None:
    await connection.execute(delete(schedules).where(schedules.c.app == app, schedules.c.event == event))


async def due_schedules(
    connection: AsyncConnection, now: datetime, *, after: tuple[str, str] = ("", ""), limit: int
) -> list[Due]:
    """Find schedules that are due, in the order of app and event, those after the given ones."""
    query = (
        _targets()
        .add_columns(schedules.c.next_at)
        .join(schedules, and_(schedules.c.app == events.c.app, schedules.c.event == events.c.name))
        .where(schedules.c.next_at <= now, events.c.paused_at.is_(None))
        .where(tuple_(schedules.c.app, schedules.c.event) > after)
        .order_by(schedules.c.app, schedules.c.event)
        .limit(limit)
    )
    return [Due(row["next_at"], _target(row)) for row in (await connection.execute(query)).mappings()]


async def first_due(connection: AsyncConnection) -> datetime | None:
    """Tell when the next schedule is due."""
    query = select(schedules.c.next_at).where(schedules.c.next_at.is_not(None)).order_by(schedules.c.next_at).limit(1)
    found: datetime | None = await connection.scalar(query)
    return found


async def advance_schedule(
    connection: AsyncConnection, due: Due, *, next_at: datetime | None, fired_at: datetime | None
) -> bool:
    """Move a schedule forward; False when it was moved or changed since it was read, and then nothing may fire."""
    values: dict[str, datetime | None] = {"next_at": next_at}
    if fired_at is not None:
        values["last_at"] = fired_at
    moved = await connection.execute(
        update(schedules)
        .where(
            schedules.c.app == due.target.app,
            schedules.c.event == due.target.event,
            schedules.c.next_at == due.next_at,
        )
        .values(**values)
    )
    return changed(moved) > 0


async def live_runs(connection: AsyncConnection, app: str, event: str) -> list[str]:
    """List an event's runs that are not over, oldest first."""
    query = select(runs.c.id).where(runs.c.app == app, runs.c.event == event, runs.c.status.in_(_LIVE))
    return list((await connection.execute(query.order_by(runs.c.id))).scalars())


async def known_keys(connection: AsyncConnection, app: str, event: str, keys: Sequence[str]) -> set[str]:
    """Tell which of these idempotency keys an event has used already."""
    query = select(runs.c.idempotency_key).where(
        runs.c.app == app, runs.c.event == event, runs.c.idempotency_key.in_(keys)
    )
    return set((await connection.execute(query)).scalars())


# Deliveries


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook request as it came in, without the headers that are secret."""

    id: str
    app: str
    path: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime
    dedupe_key: str | None


async def insert_delivery(connection: AsyncConnection, delivery: Delivery) -> bool:
    """Keep a delivery; False when the sender's id for it is known already."""
    row = {
        "id": delivery.id,
        "app": delivery.app,
        "path": delivery.path,
        "method": delivery.method,
        "headers": dict(delivery.headers),
        "body": delivery.body,
        "received_at": delivery.received_at,
        "dedupe_key": delivery.dedupe_key,
    }
    made = await connection.execute(insert_or(connection, deliveries).values(row).on_conflict_do_nothing())
    return changed(made) > 0


async def find_delivery(connection: AsyncConnection, app: str, path: str, dedupe_key: str) -> str | None:
    """Find the first delivery that a sender made under this id."""
    query = select(deliveries.c.id).where(
        deliveries.c.app == app, deliveries.c.path == path, deliveries.c.dedupe_key == dedupe_key
    )
    found: str | None = await connection.scalar(query)
    return found


async def runs_of_delivery(connection: AsyncConnection, app: str, events: Sequence[str], delivery_id: str) -> list[str]:
    """List the runs of these events that a delivery started: its id is their idempotency key, which is indexed."""
    query = select(runs.c.id).where(
        runs.c.app == app, runs.c.event.in_(events), runs.c.idempotency_key == delivery_key(delivery_id)
    )
    return list((await connection.execute(query.order_by(runs.c.id))).scalars())


def delivery_key(delivery_id: str) -> str:
    """Give the idempotency key of the runs of a delivery."""
    return f"flo:{delivery_id}"


def _events() -> Select[tuple[object, ...]]:
    return select(events, schedules.c.next_at, schedules.c.last_at).outerjoin(
        schedules, and_(schedules.c.app == events.c.app, schedules.c.event == events.c.name)
    )


def _targets() -> Select[tuple[object, ...]]:
    return (
        select(
            events.c.app,
            events.c.name,
            events.c.kind,
            events.c.flow,
            func.coalesce(events.c.version, flows.c.latest_version).label("version"),
            events.c.config,
            events.c.created_at,
            events.c.paused_at,
            flows.c.retired_at,
            apps.c.limits,
        )
        .join(flows, and_(flows.c.app == events.c.app, flows.c.name == events.c.flow))
        .join(apps, apps.c.name == events.c.app)
    )


def _target(row: RowMapping) -> Target:
    return Target(
        app=row["app"],
        event=row["name"],
        kind=EventKind(row["kind"]),
        flow=row["flow"],
        version=row["version"],
        config=row["config"],
        created_at=row["created_at"],
        paused=row["paused_at"] is not None,
        retired=row["retired_at"] is not None,
        limits=AppLimits.model_validate(row["limits"] or {}),
    )
