"""Dead letters: runs that lost their worker too often, and messages that no worker could read."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from dispatch.store.dead_messages import discard_message, list_messages, read_message
from dispatch.store.runs import RunRecord, list_attempts, list_runs, redrive, redrive_many
from scheduler.auth import Caller, Scope
from scheduler.routes.docs import (
    PROBLEMS,
    AppFilter,
    Cursor,
    FlowFilter,
    LetterId,
    Limit,
    MessageId,
    Page,
    RunId,
    Started,
)
from scheduler.routes.invoke import answer_started
from scheduler.routes.runs import ShownRun, find_run
from scheduler.spine import Spine, spine_of
from scheduler.starting import as_text
from scheduler.views import answer, run_views
from schemas.errors import Conflict, NotFound
from schemas.json import JSONObject
from schemas.run import RunStatus

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], responses=PROBLEMS)

#: Runs that are redriven in one transaction, and for one request.
_BATCH = 100
_MOST = 10_000
#: Cursor of the page that begins with the messages.
_MESSAGES = "msg"


class Attempt(BaseModel):
    """One try at a run."""

    attempt: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    reason: str | None


class DeadRun(ShownRun):
    """A run that was given up, with every try at it."""

    kind: Literal["run"]
    attempts: list[Attempt]


class DeadMessageView(BaseModel):
    """A message that no worker could read: its beginning, and why."""

    kind: Literal["message"]
    id: str
    carrier: str
    lane: str
    body: str
    #: `base64` when the body is not text.
    encoding: Literal["text", "base64"]
    #: The whole message's length in bytes.
    size: int
    reason: str
    received_at: datetime


class DeadLetterPage(Page):
    items: list[DeadRun | DeadMessageView]


class Redriven(BaseModel):
    """How many runs were queued again; `more` says that there are others: ask again."""

    redriven: int
    more: bool


@router.get(
    "",
    summary="List dead letters: runs, newest first, then (for an admin who asks for all apps) unreadable messages",
    responses={200: {"model": DeadLetterPage}},
    response_model=None,
)
async def index(
    request: Request,
    *,
    app: AppFilter = None,
    kind: Annotated[Literal["run", "message"] | None, Query(description="only these")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    app = app or caller.app
    caller.require(Scope.READ, app=app)
    if kind == "message":
        caller.require(Scope.ADMIN)
    # Messages belong to no app; they follow the runs.
    messages_too = caller.admin and app is None and kind is None
    items: list[JSONObject] = []
    next_cursor: str | None = _MESSAGES
    async with spine.store.read() as connection:
        if kind != "message" and not (cursor or "").startswith(_MESSAGES):
            rows, next_cursor = await list_runs(
                connection, app=app, status=str(RunStatus.DEAD), cursor=cursor, limit=limit
            )
            items = await _dead_runs(connection, rows)
            if next_cursor is None and messages_too:
                next_cursor = cursor = _MESSAGES
        room = limit - len(items)
        if next_cursor == _MESSAGES and room:
            messages, next_cursor = await list_messages(connection, after=cursor, limit=room)
            items += [_message(row) for row in messages]
    return answer({"items": list(items), "next_cursor": next_cursor})


@router.get(
    "/{name}",
    summary="Read a dead letter: a run that was given up, or (for admins) an unreadable message",
    responses={200: {"model": DeadRun | DeadMessageView}},
    response_model=None,
)
async def read(request: Request, name: LetterId) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    async with spine.store.read() as connection:
        message = await read_message(connection, name) if caller.admin else None
    if message is not None:
        return answer(_message(message))
    row = await find_run(spine, caller, name, Scope.READ)
    if row["status"] != RunStatus.DEAD:
        raise Conflict(f"run {name} is {row['status']} and no dead letter; GET /api/v1/runs/{name} shows it")
    async with spine.store.read() as connection:
        (found,) = await _dead_runs(connection, [row])
    return answer(found)


@router.post(
    "/redrive",
    summary="Give all dead-lettered runs, or an app's or a flow's, a fresh set of attempts",
    status_code=202,
    responses={202: {"model": Redriven}},
    response_model=None,
)
async def redrive_all(request: Request, app: AppFilter = None, flow: FlowFilter = None) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    app = app or caller.app
    caller.require(Scope.INVOKE, app=app)
    redriven, more = await _redrive_many(spine, app, flow)
    return answer({"redriven": redriven, "more": more}, status=202)


@router.post(
    "/{run}/redrive",
    summary="Give a dead-lettered run a fresh set of attempts",
    status_code=202,
    responses={202: {"model": Started}},
    response_model=None,
)
async def redrive_one(request: Request, run: RunId) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    row = await find_run(spine, caller, run, Scope.INVOKE)
    async with spine.store.write() as connection:
        job = await redrive(connection, run)
    if job is None:
        raise NotFound(f"there is no run {run}")
    spine.publisher.publish_soon([job])
    return answer_started(spine, run, app=row["app"], mode=row["mode"])


@router.delete("/{message}", summary="Forget a message that could not be read", status_code=204, response_model=None)
async def discard(request: Request, message: MessageId) -> Response:
    spine = spine_of(request)
    caller: Caller = await spine.gate.admit(request)
    caller.require(Scope.ADMIN)
    async with spine.store.write() as connection:
        discarded = await discard_message(connection, message)
    if not discarded:
        raise NotFound(
            f"there is no message {message}; GET /api/v1/dead-letters?kind=message lists those there are. "
            "Dead-lettered runs are redriven, or kept for FLO_DEAD_LETTER_DAYS"
        )
    return Response(status_code=204)


async def _redrive_many(spine: Spine, app: str | None, flow: str | None) -> tuple[int, bool]:
    # Those that die again meanwhile are not redriven once more.
    started = datetime.now(UTC)
    redriven = 0
    while redriven < _MOST:
        async with spine.store.write() as connection:
            jobs = await redrive_many(connection, app=app, flow=flow, died_before=started, most=_BATCH)
        spine.publisher.publish_soon(jobs)
        redriven += len(jobs)
        if len(jobs) < _BATCH:
            return redriven, False
    return redriven, True


async def _dead_runs(connection: AsyncConnection, rows: Sequence[RunRecord]) -> list[JSONObject]:
    tries = await list_attempts(connection, *(row["id"] for row in rows))
    views = await run_views(connection, rows)
    return [
        {"kind": "run", **view, "attempts": [_attempt(one) for one in tries if one["run_id"] == view["run_id"]]}
        for view in views
    ]


def _attempt(row: RowMapping) -> JSONObject:
    return {
        "attempt": row["attempt"],
        "worker": row["worker"],
        "started_at": as_text(row["started_at"]),
        "finished_at": as_text(row["finished_at"]),
        "outcome": row["outcome"],
        "reason": row["reason"],
    }


def _message(row: RowMapping) -> JSONObject:
    body = bytes(row["body"])
    try:
        shown, encoding = body.decode(), "text"
    except UnicodeDecodeError:
        shown, encoding = base64.b64encode(body).decode(), "base64"
    return {
        "kind": "message",
        "id": row["id"],
        "carrier": row["carrier"],
        "lane": row["lane"],
        "body": shown,
        "encoding": encoding,
        "size": row["size"],
        "reason": row["reason"],
        "received_at": as_text(row["received_at"]),
    }
