"""Invoke: run an event's flow now, and stream it, wait for it, or only be told that it was accepted."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette import types
from starlette.responses import Response
from starlette.routing import Route

from scheduler.auth import Scope
from scheduler.following import event_stream, last_event
from scheduler.requests import read_body
from scheduler.routes.docs import PROBLEMS, AppName, Ended, EventName, IdempotencyKey, Started, json_body
from scheduler.spine import Spine, spine_of
from scheduler.starting import LOCAL, InvokeBody, find_target, read_idempotency_key, start
from scheduler.views import answer
from schemas.errors import Invalid, Problem
from schemas.json import JSONObject
from schemas.run import Lane
from schemas.settings import AsyncBackend, SyncBackend

router = APIRouter(prefix="/apps/{app}/events/{event}/invoke", tags=["invoke"], responses=PROBLEMS)

#: Longest wait for a JSON answer, in seconds; then the caller gets what it needs to go on following.
_LONGEST_WAIT = 3600

_STREAM = {
    "description": "the run's events, or its end as JSON (by Accept)",
    "model": Ended,
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'event: run_queued\nid: 1\ndata: {"seq": 1, "type": "run_queued"}\n\n',
        }
    },
}


@router.post(
    "",
    summary="Run now and stream the run's events; with Accept: application/json, wait for the end",
    responses={200: _STREAM, 202: {"model": Started, "description": "it takes longer than ?wait= says; follow it"}},
    response_model=None,
    openapi_extra=json_body(InvokeBody, required=False),
)
async def invoke(
    request: Request,
    app: AppName,
    event: EventName,
    wait: Annotated[float, Query(gt=0, le=_LONGEST_WAIT, description="seconds to wait for a JSON answer")] = 300,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.INVOKE, app=app)
    body = await read_body(request, InvokeBody)
    if body.mode == LOCAL:
        message = 'mode "local" only tracks a run that the caller executes: there is nothing to wait for'
        raise Invalid([Problem(path="mode", message=message, fix="use /invoke/async")], what="request body")
    target = await find_target(spine, app, event)
    key = read_idempotency_key(idempotency_key)
    mode = None if spine.settings.sync_backend is SyncBackend.QUEUE else str(spine.settings.sync_backend)
    accepted = await start(spine, target, body, lane=Lane.FLOW, mode=mode, idempotency_key=key)
    if not _wants_json(request):
        return event_stream(spine, accepted.run_id)
    last = await last_event(spine, accepted.run_id, timeout=timedelta(seconds=wait))
    if last is None:
        return answer_started(spine, accepted.run_id, app=app, mode=body.mode)
    said = last.happening.data
    ended: JSONObject = {"run_id": accepted.run_id, **{key: said.get(key) for key in ("status", "result", "error")}}
    return answer(ended)


@router.post(
    "/async",
    summary="Accept a run and answer at once",
    status_code=202,
    responses={202: {"model": Started}},
    response_model=None,
    openapi_extra=json_body(InvokeBody, required=False),
)
async def invoke_async(
    request: Request, app: AppName, event: EventName, idempotency_key: IdempotencyKey = None
) -> Response:
    return await accept(request, app, event, idempotency_key)


async def _accept_fast(request: Request) -> Response:
    params = request.path_params
    return await accept(request, params["app"], params["event"], request.headers.get("idempotency-key"))


class FastRoute(Route):
    """`invoke_async` as a plain Starlette route: FastAPI's own part would take a quarter of its time."""

    def __init__(self) -> None:
        path = "/api/v1/apps/{app}/events/{event}/invoke/async"
        super().__init__(path, _accept_fast, methods=["POST"], include_in_schema=False)

    async def handle(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        scope["route"] = self  # as FastAPI's routes do: the figures are kept by route
        await super().handle(scope, receive, send)


async def accept(request: Request, app: str, event: str, idempotency_key: str | None) -> Response:
    """Check, write and send on a run; answer what it takes to follow it."""
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.INVOKE, app=app)
    body = await read_body(request, InvokeBody)
    target = await find_target(spine, app, event)
    key = read_idempotency_key(idempotency_key)
    mode = "http" if spine.settings.async_backend is AsyncBackend.HTTP else None
    accepted = await start(spine, target, body, lane=Lane.FLOW, mode=mode, idempotency_key=key)
    return answer_started(spine, accepted.run_id, app=app, mode=body.mode)


def answer_started(spine: Spine, run_id: str, *, app: str, mode: str | None) -> Response:
    """Answer that a run was accepted, with what it takes to follow it."""
    backend = LOCAL if mode == LOCAL else str(spine.settings.async_backend)
    view: JSONObject = {
        "run_id": run_id,
        "status": "queued",
        "poll_token": spine.tokens.issue(run_id, app=app),
        "backend": backend,
    }
    return answer(view, status=202, headers={"Location": f"/api/v1/runs/{run_id}"})


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/event-stream" not in accept
