"""Runs: list, read, follow, cancel, retry."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dispatch.bell import Topic
from dispatch.store.flows import read_version
from dispatch.store.history import read_histories
from dispatch.store.release import request_cancel
from dispatch.store.runs import NewRun, RunRecord, list_runs, read_run
from scheduler.auth import Caller, Scope, bearer_of
from scheduler.following import event_stream, is_over, next_events
from scheduler.requests import read_body
from scheduler.rerun import taken_over
from scheduler.routes.docs import PROBLEMS, TEXT, AppFilter, Cursor, EventFilter, Limit, Page, RunId, Started, json_body
from scheduler.routes.invoke import answer_started
from scheduler.spine import Spine, spine_of
from scheduler.starting import LOCAL
from scheduler.views import answer, run_views
from schemas.errors import Conflict, NotFound, Refused
from schemas.flow import FlowDocument
from schemas.json import JSONObject, JSONValue
from schemas.run import Happening, Lane, RunStatus, RunView

router = APIRouter(prefix="/runs", tags=["runs"], responses=PROBLEMS)

#: Longest long poll, in seconds; most proxies give up at 60.
_LONGEST_POLL = 55


class ShownWait(BaseModel):
    """What one node of a waiting run waits for."""

    node_id: str
    kind: str
    until: str | None
    #: Where the answer is to be sent.
    url: str | None
    #: Of a child: the run whose end is awaited.
    run_id: str | None = None


class ShownRun(RunView):
    """A run, what it is a part of, and while it waits, for what."""

    #: The run that waits for this one, by a flow.call or a node in a pod.
    parent_run: str | None = None
    #: Of a run that is one node, in a pod: which of the flow's.
    node: str | None = None
    #: Of a queued run that stands in line: the limit of its app.
    waiting_for: str | None = None
    #: Of a waiting run.
    waits: list[ShownWait] | None = None


class RunPage(Page):
    items: list[ShownRun]


class CancelBody(BaseModel):
    """Why a run is cancelled."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="cancelled on request", min_length=1, max_length=1000, pattern=TEXT)


class RetryBody(BaseModel):
    """Where a run that is run once more begins."""

    model_config = ConfigDict(extra="forbid")

    from_node: str | None = Field(
        default=None,
        max_length=200,
        pattern=TEXT,
        description="this node, and all that hangs on it; what others gave is taken over. Unless given, everything",
    )


class Cancelled(BaseModel):
    """Where a cancelled run stands: `running` until its worker has stopped it."""

    run_id: str
    status: RunStatus


class EventPage(BaseModel):
    """A part of a run's history."""

    items: list[dict[str, JSONValue]]
    #: Give it as `after` to get what follows; null when the run is over and this was all.
    next_cursor: int | None
    status: RunStatus


@router.get("", summary="List runs, newest first", responses={200: {"model": RunPage}}, response_model=None)
async def index(
    request: Request,
    *,
    app: AppFilter = None,
    status: Annotated[RunStatus | None, Query()] = None,
    lane: Annotated[Lane | None, Query()] = None,
    event: EventFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    return await page_of_runs(spine, caller, app=app, status=status, lane=lane, event=event, limit=limit, cursor=cursor)


@router.get("/{run}", summary="Read a run", responses={200: {"model": ShownRun}}, response_model=None)
async def read(request: Request, run: RunId) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    row = await find_run(spine, caller, run, Scope.READ)
    async with spine.store.read() as connection:
        (view,) = await run_views(connection, [row])
    return answer(view)


@router.post(
    "/{run}/cancel",
    summary="Stop a run; asking again changes nothing",
    responses={
        200: {"model": Cancelled, "description": "it is over"},
        202: {"model": Cancelled, "description": "its worker is stopping it"},
    },
    response_model=None,
    openapi_extra=json_body(CancelBody, required=False),
)
async def cancel(request: Request, run: RunId) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    await find_run(spine, caller, run, Scope.INVOKE)
    body = await read_body(request, CancelBody)
    async with spine.store.write() as connection:
        status = await request_cancel(connection, run, body.reason)
    if status is None:
        raise _no_such_run(run)
    if status is RunStatus.RUNNING:
        spine.bell.ring(Topic.CANCEL, run)
    spine.bell.ring(Topic.EVENTS, [[run, 0]])
    return answer({"run_id": run, "status": str(status)}, status=200 if status.terminal else 202)


@router.post(
    "/{run}/retry",
    summary="Run it once more, as a new run: all of it, or from a node on",
    status_code=202,
    responses={202: {"model": Started}},
    response_model=None,
    openapi_extra=json_body(RetryBody, required=False, example={"from_node": "charge"}),
)
async def retry(request: Request, run: RunId) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    row = await find_run(spine, caller, run, Scope.INVOKE)
    if not RunStatus(row["status"]).terminal:
        raise Conflict(f"run {run} is {row['status']}; only a run that is over can be retried: cancel it first")
    body = await read_body(request, RetryBody)
    kept = () if body.from_node is None else await _taken_over(spine, row, body.from_node)
    new = NewRun(
        app=row["app"],
        flow=row["flow"],
        version=row["version"],
        event=row["event"],
        lane=Lane(row["lane"]),
        payload=row["payload"],
        max_attempts=spine.settings.max_attempts,
        priority=row["priority"],
        mode=row["mode"],
        backend_config=row["backend_config"],
        worker_group=row["worker_group"],
        concurrency_key=row["concurrency_key"],
        retry_of=run,
        node=row["node"],
        taken_over=kept,
    )
    accepted = await spine.writer.accept(new, tracked_only=new.mode == LOCAL)
    if accepted.job is not None:
        spine.publisher.publish_soon([accepted.job])
    return answer_started(spine, new.id, app=row["app"], mode=row["mode"])


@router.get(
    "/{run}/events",
    summary="Follow a run: long poll, or with Accept: text/event-stream as a stream that Last-Event-ID resumes",
    responses={
        200: {
            "model": EventPage,
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "the stream is over, and was given whole: don't connect again"},
    },
    response_model=None,
)
async def events(
    request: Request,
    run: RunId,
    *,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="only events after this number")] = 0,
    timeout: Annotated[float, Query(ge=0, le=_LONGEST_POLL, description="seconds to wait for the first")] = 10,
    poll_token: Annotated[str | None, Query(description="for browsers, whose EventSource sends no headers")] = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    spine = spine_of(request)
    row = await _find_for_poll(spine, request, run, poll_token)
    streaming = "text/event-stream" in request.headers.get("accept", "")
    if streaming and last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        after = max(after, int(last_event_id))
    status = RunStatus(row["status"])
    given_whole = status.terminal and after >= row["last_seq"]
    if streaming:
        return Response(status_code=204) if given_whole else event_stream(spine, run, after=after)
    wait = timedelta(0) if given_whole else timedelta(seconds=timeout)
    news = await next_events(spine, run, after=after, timeout=wait)
    over = given_whole or (bool(news) and is_over(news[-1]))
    if news and is_over(news[-1]):
        status = RunStatus(str(news[-1].happening.data["status"]))
    page: JSONObject = {
        "items": [event.as_json() for event in news],
        "next_cursor": None if over else news[-1].seq if news else after,
        "status": str(status),
    }
    return answer(page)


async def _taken_over(spine: Spine, row: RunRecord, from_node: str) -> tuple[Happening, ...]:
    if row["mode"] == LOCAL:
        raise Conflict(f"run {row['id']} was only tracked here; whoever executes it has to begin at a node")
    async with spine.store.read() as connection:
        document = await read_version(connection, row["app"], row["flow"], row["version"])
        histories = await read_histories(connection, [row["id"]])
    if document is None:
        raise NotFound(f"version {row['version']} of flow {row['flow']!r} is not there any more")
    return taken_over(FlowDocument.model_validate(document), histories[row["id"]], from_node=from_node)


async def page_of_runs(
    spine: Spine,
    caller: Caller,
    *,
    app: str | None,
    status: RunStatus | None,
    lane: Lane | None,
    event: str | None,
    limit: int,
    cursor: str | None,
) -> Response:
    """Answer with runs that the caller may see: of one app, or for an admin of all."""
    app = app or caller.app
    caller.require(Scope.READ, app=app)
    async with spine.store.read() as connection:
        rows, next_cursor = await list_runs(
            connection,
            app=app,
            status=None if status is None else str(status),
            lane=None if lane is None else str(lane),
            event=event,
            cursor=cursor,
            limit=limit,
        )
        views = await run_views(connection, rows)
    return answer({"items": list(views), "next_cursor": next_cursor})


async def find_run(spine: Spine, caller: Caller, run: str, scope: Scope) -> RunRecord:
    """Find a run of the caller's. One of another app does not exist for them."""
    async with spine.store.read() as connection:
        row = await read_run(connection, run)
    if row is None or not caller.sees(row["app"]):
        raise _no_such_run(run)
    caller.require(scope, app=row["app"])
    return row


async def _find_for_poll(spine: Spine, request: Request, run: str, poll_token: str | None) -> RunRecord:
    given = poll_token or bearer_of(request)
    right = spine.tokens.read(given) if given is not None and given.count(".") == 2 else None
    if right is None:
        return await find_run(spine, await spine.gate.admit(request), run, Scope.READ)
    if right.run_id != run:
        raise Refused(f"this poll token is for run {right.run_id}; use the one that the start of {run} returned")
    async with spine.store.read() as connection:
        row = await read_run(connection, run)
    if row is None:
        raise _no_such_run(run)
    return row


def _no_such_run(run: str) -> NotFound:
    return NotFound(f"there is no run {run}; GET /api/v1/runs lists those there are")
