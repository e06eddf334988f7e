"""Waitpoints: whoever has the URL resumes the run that waits at it. The token in it is all the right that they need."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Annotated
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from starlette.responses import HTMLResponse, Response

from dispatch.bell import Topic
from dispatch.store.waitpoints import Closed, Waitpoint, read_open
from dispatch.store.waitpoints import answer as answer_waitpoint
from scheduler.problem import Gone
from scheduler.requests import parse_json, read_body
from scheduler.routes.docs import PROBLEMS, TEXT
from scheduler.spine import Spine, spine_of
from scheduler.starting import as_text
from scheduler.views import answer
from scheduler.webhooks.payload import SECRET_HEADERS
from schemas.errors import NotFound
from schemas.json import JSONObject, JSONValue, loads_foreign
from schemas.outcome import WaitKind
from schemas.waitpoint import is_token, waitpoint_of

router = APIRouter(prefix="/waitpoints", tags=["waitpoints"], responses=PROBLEMS)

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

Token = Annotated[str, Path(max_length=100, description="the end of the URL that the wait node made")]


class Decision(BaseModel):
    """What a person says at a wait.approval."""

    model_config = ConfigDict(extra="forbid")

    approved: StrictBool
    by: str = Field(default="", max_length=200, pattern=TEXT, description="who decides, as they say")
    comment: str = Field(default="", max_length=10_000, pattern=TEXT)


class Resumed(BaseModel):
    """The run that goes on."""

    run_id: str
    resumed: bool


@router.api_route(
    "/{token}",
    methods=_METHODS,
    summary="Resume a waiting run with this request; at a wait.approval GET shows the question, and POST decides",
    responses={200: {"model": Resumed}},
    response_model=None,
    include_in_schema=False,
)
async def meet(request: Request, token: Token) -> Response:
    spine = spine_of(request)
    waitpoint = await _find(spine, token)
    if waitpoint.kind is WaitKind.APPROVAL:
        if request.method == "GET":
            return _question(request, waitpoint)
        return await _decide(spine, request, waitpoint)
    return await _resume(spine, waitpoint, await _brought(request), f"a {request.method} came to its waitpoint")


async def _find(spine: Spine, token: str) -> Waitpoint:
    if not is_token(token):
        raise NotFound("no run waits here; check the URL for a typing error")
    async with spine.store.read() as connection:
        try:
            found = await connection.run_sync(partial(read_open, waitpoint=waitpoint_of(token)))
        except Closed as closed:
            raise Gone(str(closed)) from None
    if found.kind is WaitKind.CHILD:
        raise NotFound("no run waits here; check the URL for a typing error")
    return found


async def _decide(spine: Spine, request: Request, waitpoint: Waitpoint) -> Response:
    if _is_form(request):
        said = dict(parse_qsl((await request.body()).decode(errors="replace").replace("\0", "\ufffd")))
        decision = Decision(
            approved=said.get("approved") == "yes",
            by=said.get("by", "")[:200],
            comment=said.get("comment", "")[:10_000],
        )
    else:
        decision = await read_body(request, Decision)
    word = "approved" if decision.approved else "refused"
    reason = f"{word} by {decision.by}" if decision.by else word
    resumed = await _resume(spine, waitpoint, decision.model_dump(mode="json"), reason)
    return _html(_page(waitpoint, f"<p>Noted: {word}. The run goes on.</p>")) if _is_form(request) else resumed


async def _resume(spine: Spine, waitpoint: Waitpoint, said: JSONObject, reason: str) -> Response:
    try:
        work = partial(answer_waitpoint, waitpoint=waitpoint.id, said=said, reason=reason)
        run_id, job = await spine.store.transact(work)
    except Closed as closed:
        raise Gone(str(closed)) from None
    if job is not None:
        spine.publisher.publish_soon([job])
        spine.bell.ring(Topic.EVENTS, [[run_id, 0]])
    return answer({"run_id": run_id, "resumed": True})


async def _brought(request: Request) -> JSONObject:
    headers: dict[str, JSONValue] = {}
    for name, value in request.headers.items():
        if name not in SECRET_HEADERS:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query: dict[str, JSONValue] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        query[name] = values[0] if len(values) == 1 else list[JSONValue](values)
    return {"body": await _body(request), "headers": headers, "query": query, "method": request.method}


async def _body(request: Request) -> JSONValue:
    """Read JSON where the sender says that it is some, else text."""
    body = await request.body()
    if not body:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        value: JSONValue = parse_json(body, foreign=True)
        return value
    text = body.decode(errors="replace").replace("\0", "\ufffd")
    if kind:
        return text
    try:
        guessed: JSONValue = loads_foreign(body)
        return guessed
    except orjson.JSONDecodeError:
        return text


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


def _question(request: Request, waitpoint: Waitpoint) -> Response:
    """Show what is asked: a page for a browser, JSON for anything else."""
    if "text/html" in request.headers.get("accept", ""):
        return _html(_page(waitpoint, _FORM))
    question: JSONObject = {
        "kind": str(waitpoint.kind),
        "flow": waitpoint.flow,
        "node_id": waitpoint.node_id,
        "message": waitpoint.message,
        "expires_at": as_text(waitpoint.expires_at),
        "answer_with": {"approved": "true or false", "by": "who decides", "comment": "why"},
    }
    return answer(question)


_FORM = """<form method="post">
<p><label>Your name <input name="by" maxlength="200"></label></p>
<p><label>Comment <input name="comment" maxlength="10000"></label></p>
<p><button name="approved" value="yes">Approve</button> <button name="approved" value="no">Refuse</button></p>
</form>"""


def _html(page: str) -> Response:
    # The token is in the address: tell it to nobody, and let no other site show the page in a frame.
    headers = {"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cache-Control": "no-store"}
    return HTMLResponse(page, headers=headers)


def _page(waitpoint: Waitpoint, content: str) -> str:
    message = escape(waitpoint.message or "A flow asks for your decision.")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(waitpoint.flow)}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}</style>"
        f'<h1>{escape(waitpoint.flow)}</h1><p style="white-space:pre-wrap">{message}</p>{content}</html>'
    )
