"""Webhooks: whoever knows the secret may send; what they send is kept with its runs in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel
from starlette.responses import Response

from dispatch.store.runs import NewRun
from dispatch.store.triggers import Delivery, delivery_key
from scheduler.event_config import Scheme
from scheduler.problem import Unauthenticated
from scheduler.routes.docs import PROBLEMS, TEXT, AppName
from scheduler.spine import Spine, spine_of
from scheduler.starting import check_open
from scheduler.targets import Hook
from scheduler.views import answer
from scheduler.webhooks.arrival import Arrival
from scheduler.webhooks.handshakes import handshake
from scheduler.webhooks.intake import Kept
from scheduler.webhooks.payload import delivery_id_of, matches, payload_of, request_of, shown_headers
from scheduler.webhooks.reply import wait_for_reply
from scheduler.webhooks.signatures import Disbelieved, verify_sender
from schemas.errors import NotFound
from schemas.ids import new_id
from schemas.json import JSONObject
from schemas.run import Lane

router = APIRouter(prefix="/hooks", tags=["webhooks"], responses=PROBLEMS)

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

#: Asks for the flow's reply instead of a receipt.
_SYNC = "/sync"


class Received(BaseModel):
    """A delivery that was kept."""

    delivery_id: str
    #: One for each event that listens on the path and matches.
    run_ids: list[str]


@router.api_route(
    "/{app}/{path:path}",
    methods=_METHODS,
    summary="Send to a webhook; with /sync after the path, wait for the flow's reply",
    status_code=202,
    responses={
        202: {"model": Received},
        502: {"description": "/sync: the run failed"},
        504: {"description": "/sync: the run takes longer than the event allows"},
    },
    response_model=None,
    include_in_schema=False,
)
async def receive(
    request: Request,
    app: AppName,
    path: Annotated[str, Path(max_length=500, pattern=TEXT, description="the event's path")],
) -> Response:
    spine = spine_of(request)
    tidy = path.strip("/")
    sync = f"/{tidy}".endswith(_SYNC)
    arrival = await _arrival(request, app, f"/{tidy}".removesuffix(_SYNC).strip("/") if sync else tidy)
    believed = await _believed(spine, arrival)
    content = request_of(arrival, secret_header=_token_header(believed))
    greeting = handshake(content, believed[0].config.verify.scheme)
    if greeting is not None:
        spine.figures.deliveries.labels("handshake").inc()
        return answer(greeting)
    open_hooks = _open(believed)
    kept = await _keep(spine, arrival, content, open_hooks)
    spine.figures.deliveries.labels("repeated" if kept.repeated else "kept").inc()
    spine.publisher.publish_soon(kept.jobs)
    if sync and kept.run_ids:
        limit = timedelta(seconds=open_hooks[0].config.sync_timeout_s)
        return await wait_for_reply(spine, kept.delivery_id, kept.run_ids[0], timeout=limit)
    return answer({"delivery_id": kept.delivery_id, "run_ids": list(kept.run_ids)}, status=202)


async def _arrival(request: Request, app: str, path: str) -> Arrival:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query: dict[str, str | list[str]] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        query[name] = values[0] if len(values) == 1 else values
    return Arrival(
        app=app,
        path=path,
        method=request.method,
        headers=headers,
        query=query,
        body=await request.body(),
        received_at=datetime.now(UTC),
    )


async def _believed(spine: Spine, arrival: Arrival) -> list[Hook]:
    """Find the events on this path that believe the sender. Raises NotFound or Unauthenticated."""
    hooks = await spine.targets.of_path(arrival.app, arrival.path)
    if not hooks:
        raise NotFound(f"no webhook listens on /hooks/{arrival.app}/{arrival.path}; check the path for a typing error")
    believed, doubts = [], []
    for hook in hooks:
        try:
            verify_sender(arrival, hook.config.verify, hook.secret, now=arrival.received_at)
        except Disbelieved as doubt:
            doubts.append(str(doubt))
        else:
            believed.append(hook)
    if not believed:
        spine.figures.deliveries.labels("refused").inc()
        raise Unauthenticated("; ".join(dict.fromkeys(doubts)), headers={"WWW-Authenticate": 'Webhook realm="flo"'})
    return believed


def _open(hooks: Sequence[Hook]) -> list[Hook]:
    """Leave out paused and retired ones. Raises what the first is, when none is left."""
    open_hooks = [hook for hook in hooks if not hook.target.paused and not hook.target.retired]
    if not open_hooks:
        check_open(hooks[0].target)
    return open_hooks


async def _keep(spine: Spine, arrival: Arrival, content: JSONObject, hooks: Sequence[Hook]) -> Kept:
    delivery = Delivery(
        id=new_id("dlv"),
        app=arrival.app,
        path=arrival.path,
        method=arrival.method,
        headers=shown_headers(arrival, secret_header=_token_header(hooks)),
        body=arrival.body,
        received_at=arrival.received_at,
        dedupe_key=next((key for hook in hooks if (key := delivery_id_of(content, hook.config))), None),
    )
    runs = [
        NewRun(
            app=hook.target.app,
            flow=hook.target.flow,
            version=hook.target.version,
            event=hook.target.event,
            lane=Lane.WEBHOOK,
            payload=payload_of(content, hook.config),
            max_attempts=spine.settings.max_attempts,
            delivery_id=delivery.id,
            idempotency_key=delivery_key(delivery.id),
        )
        for hook in hooks
        if matches(content, hook.config.match)
    ]
    kept = await spine.intake.keep(delivery, runs)
    spine.figures.accepted.labels(str(Lane.WEBHOOK)).inc(len(kept.jobs))
    return kept


def _token_header(hooks: Sequence[Hook]) -> str | None:
    return next((hook.config.verify.header for hook in hooks if hook.config.verify.scheme is Scheme.TOKEN), None)
