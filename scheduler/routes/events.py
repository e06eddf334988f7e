"""Events: create, change, read, list, remove, pause, resume, fire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from dispatch.store.flows import has_version, read_flow
from dispatch.store.triggers import (
    delete_event,
    drop_schedule,
    list_events,
    put_event,
    read_event,
    set_next,
    set_paused,
)
from dispatch.store.vault import Vault, read_secret
from scheduler.auth import Scope
from scheduler.cron import next_times
from scheduler.event_config import (
    Config,
    ScheduleConfig,
    WebhookConfig,
    read_config,
    refuse_sealed,
    shown_config,
    stored_config,
)
from scheduler.requests import read_body
from scheduler.routes.docs import (
    NAME,
    PROBLEMS,
    AppName,
    Cursor,
    EventName,
    IdempotencyKey,
    Limit,
    Page,
    Started,
    json_body,
)
from scheduler.routes.invoke import answer_started
from scheduler.spine import Spine, spine_of
from scheduler.starting import InvokeBody, as_text, find_target, no_such_event, read_idempotency_key, start
from scheduler.targets import secret_label
from scheduler.views import answer
from schemas.errors import Invalid, Problem
from schemas.event import EventKind
from schemas.json import JSONObject, JSONValue
from schemas.run import Lane

router = APIRouter(prefix="/apps/{app}/events", tags=["events"], responses=PROBLEMS)

#: Due times that are shown ahead.
_AHEAD = 5

_LANES = {EventKind.SCHEDULE: Lane.RECURRING, EventKind.POLL: Lane.RECURRING, EventKind.WEBHOOK: Lane.WEBHOOK}


class EventBody(BaseModel):
    """What an event is."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "kind": "schedule",
                "flow": "hello",
                "config": {"cron": "*/5 * * * *", "timezone": "Asia/Tokyo"},
            }
        },
    )

    kind: EventKind
    flow: str = Field(pattern=NAME, max_length=200)
    version: int | None = Field(default=None, ge=1, le=2**31 - 1, description="fixed to this version; else the newest")
    config: JSONObject = {}


class EventView(BaseModel):
    """An event as it is shown: secrets masked."""

    app: str
    event: str
    kind: EventKind
    flow: str
    version: int | None
    config: dict[str, JSONValue]
    paused: bool
    created_at: datetime
    updated_at: datetime
    #: Where a webhook's sender sends to.
    url: str | None
    next_at: datetime | None
    last_at: datetime | None
    #: The next due times of a schedule.
    next_times: list[datetime]


class EventPage(Page):
    items: list[EventView]


@router.put(
    "/{event}",
    summary="Create or change an event",
    responses={
        200: {"model": EventView, "description": "changed"},
        201: {"model": EventView, "description": "created"},
    },
    response_model=None,
    openapi_extra=json_body(EventBody),
)
async def put(request: Request, app: AppName, event: EventName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.WRITE, app=app)
    body = await read_body(request, EventBody)
    refuse_sealed(body.config)
    config = read_config(body.kind, body.config)
    if isinstance(config, ScheduleConfig):
        config.schedule(anchor=datetime.now(UTC))
    async with spine.store.write() as connection:
        await _check_flow(connection, app, body)
        if isinstance(config, WebhookConfig) and config.verify.secret_ref is not None:
            await _check_secret(connection, spine.vault, app, config.verify.secret_ref)
        before = await read_event(connection, app, event)
        stored = stored_config(
            config, vault=spine.vault, label=secret_label(app, event), before=before["config"] if before else None
        )
        created = await put_event(
            connection,
            app=app,
            name=event,
            kind=body.kind,
            flow=body.flow,
            version=body.version,
            config=stored,
            path=config.path if isinstance(config, WebhookConfig) else None,
        )
        await _reschedule(connection, app, event, config, before)
        row = await read_event(connection, app, event)
    spine.targets.forget()
    return answer(_view(request, row), status=201 if created else 200)


@router.get("", summary="List events", responses={200: {"model": EventPage}}, response_model=None)
async def index(
    request: Request,
    app: AppName,
    kind: Annotated[EventKind | None, Query(description="only this kind")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.READ, app=app)
    async with spine.store.read() as connection:
        rows, next_cursor = await list_events(connection, app, kind=kind, cursor=cursor, limit=limit)
    return answer({"items": [_view(request, row) for row in rows], "next_cursor": next_cursor})


@router.get("/{event}", summary="Read an event", responses={200: {"model": EventView}}, response_model=None)
async def read(request: Request, app: AppName, event: EventName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.READ, app=app)
    return answer(_view(request, await _find(spine, app, event)))


@router.delete("/{event}", summary="Remove an event; its runs stay", status_code=204, response_model=None)
async def remove(request: Request, app: AppName, event: EventName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.WRITE, app=app)
    async with spine.store.write() as connection:
        gone = await delete_event(connection, app, event)
    if not gone:
        raise await no_such_event(spine, app, event)
    spine.targets.forget()
    return Response(status_code=204)


@router.post(
    "/{event}/pause",
    summary="Start nothing by this event until it is resumed",
    responses={200: {"model": EventView}},
    response_model=None,
)
async def pause(request: Request, app: AppName, event: EventName) -> Response:
    return await _set_paused(request, app, event, paused=True)


@router.post(
    "/{event}/resume",
    summary="Let a paused event start its flow again",
    responses={200: {"model": EventView}},
    response_model=None,
)
async def resume(request: Request, app: AppName, event: EventName) -> Response:
    return await _set_paused(request, app, event, paused=False)


@router.post(
    "/{event}/fire",
    summary="Start the event's flow now, on the event's own lane",
    status_code=202,
    responses={202: {"model": Started}},
    response_model=None,
    openapi_extra=json_body(InvokeBody, required=False),
)
async def fire(request: Request, app: AppName, event: EventName, idempotency_key: IdempotencyKey = None) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.INVOKE, app=app)
    body = await read_body(request, InvokeBody)
    target = await find_target(spine, app, event)
    if target.kind is EventKind.SCHEDULE and "payload" not in body.model_fields_set:
        config = ScheduleConfig.model_validate(target.config)
        payload: JSONObject = {**config.payload, "scheduled_for": datetime.now(UTC).isoformat()}
        body = body.model_copy(update={"payload": payload})
    lane = _LANES.get(target.kind, Lane.FLOW)
    key = read_idempotency_key(idempotency_key)
    accepted = await start(spine, target, body, lane=lane, mode=None, idempotency_key=key)
    return answer_started(spine, accepted.run_id, app=app, mode=body.mode)


async def _set_paused(request: Request, app: str, event: str, *, paused: bool) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.WRITE, app=app)
    async with spine.store.write() as connection:
        row = await read_event(connection, app, event)
        if row is not None:
            await set_paused(connection, app, event, paused=paused)
            if row["kind"] == EventKind.SCHEDULE:
                await set_next(connection, app, event, None if paused else _next_of(row))
            row = await read_event(connection, app, event)
    if row is None:
        raise await no_such_event(spine, app, event)
    spine.targets.forget()
    return answer(_view(request, row))


async def _check_flow(connection: AsyncConnection, app: str, body: EventBody) -> None:
    flow = await read_flow(connection, app, body.flow)
    if flow is None:
        message = f'app "{app}" has no flow "{body.flow}"'
        fix = f"push it first: PUT /api/v1/apps/{app}/flows/{body.flow}"
    elif flow["retired_at"] is not None:
        message, fix = f'the flow "{body.flow}" is retired', "push it again to bring it back"
    elif body.version is not None and not await has_version(connection, app, body.flow, body.version):
        message = f'the flow "{body.flow}" has no version {body.version}'
        fix = f"the newest is {flow['latest_version']}; leave version out to follow it"
        raise Invalid([Problem(path="version", message=message, fix=fix)], what="event")
    else:
        return
    raise Invalid([Problem(path="flow", message=message, fix=fix)], what="event")


async def _check_secret(connection: AsyncConnection, vault: Vault, app: str, name: str) -> None:
    if await read_secret(connection, vault, app=app, name=name) is None:
        message = f'app "{app}" has no secret "{name}"'
        fix = f"set it first: PUT /api/v1/apps/{app}/secrets/{name}"
        raise Invalid([Problem(path="config.verify.secret_ref", message=message, fix=fix)], what="event")


async def _reschedule(
    connection: AsyncConnection, app: str, event: str, config: Config, before: RowMapping | None
) -> None:
    """Set a schedule's next due time. Saved again without a change, it keeps the one it has."""
    if not isinstance(config, ScheduleConfig):
        await drop_schedule(connection, app, event)
        return
    row = await read_event(connection, app, event)
    assert row is not None
    if row["paused_at"] is not None:
        await set_next(connection, app, event, None)
    elif before is None or before["next_at"] is None or not _same_times(before["config"], row["config"]):
        await set_next(connection, app, event, _next_of(row))


def _same_times(one: JSONObject, other: JSONObject) -> bool:
    return all(one.get(key) == other.get(key) for key in ("cron", "every", "timezone"))


def _next_of(row: RowMapping) -> datetime | None:
    schedule = ScheduleConfig.model_validate(row["config"]).schedule(anchor=row["created_at"])
    return schedule.after(datetime.now(UTC))


async def _find(spine: Spine, app: str, event: str) -> RowMapping:
    async with spine.store.read() as connection:
        row = await read_event(connection, app, event)
    if row is None:
        raise await no_such_event(spine, app, event)
    return row


def _view(request: Request, row: RowMapping | None) -> dict[str, Any]:
    assert row is not None
    times: list[JSONValue] = []
    if row["kind"] == EventKind.SCHEDULE and row["next_at"] is not None:
        schedule = ScheduleConfig.model_validate(row["config"]).schedule(anchor=row["created_at"])
        ahead = next_times(schedule, row["next_at"], count=_AHEAD - 1)
        times = [as_text(moment) for moment in (row["next_at"], *ahead)]
    url = f"{request.base_url}hooks/{row['app']}/{row['path']}" if row["path"] is not None else None
    return {
        "app": row["app"],
        "event": row["name"],
        "kind": row["kind"],
        "flow": row["flow"],
        "version": row["version"],
        "config": shown_config(row["config"]),
        "paused": row["paused_at"] is not None,
        "created_at": as_text(row["created_at"]),
        "updated_at": as_text(row["updated_at"]),
        "url": url,
        "next_at": as_text(row["next_at"]),
        "last_at": as_text(row["last_at"]),
        "next_times": times,
    }
