"""What the sender of a `/sync` webhook gets: the flow's own reply, or at once why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from starlette.responses import Response

from scheduler.following import last_event
from scheduler.problem import problem_response
from scheduler.spine import Spine
from schemas.json import JSONObject, JSONValue, dumps
from schemas.run import EventType, RunEvent, RunStatus

_SHAPE = frozenset({"status", "headers", "body"})

#: Set by the server, or about the connection: not a flow's to set. A cookie would be one of this server's origin.
_NOT_THE_FLOWS = frozenset(
    {
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "trailer",
        "te",
        "date",
        "server",
        "set-cookie",
    }
)

#: The reply is a tenant's, the origin is Flo's: no script in it may run there.
_GUARD = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}


async def wait_for_reply(spine: Spine, delivery_id: str, run_id: str, *, timeout: timedelta) -> Response:
    """Answer what the run answered; 502 as soon as it fails, 504 when the time is up. Never hangs."""
    last = await last_event(spine, run_id, timeout=timeout)
    ids: JSONObject = {"delivery_id": delivery_id, "run_id": run_id}
    headers = {"X-Flo-Run-Id": run_id, "X-Flo-Delivery-Id": delivery_id}
    if last is None:
        detail = (
            f"run {run_id} is not over after {timeout.total_seconds():g} s and goes on; see GET /api/v1/runs/{run_id}"
        )
        return problem_response(504, detail, headers=headers, members=ids)
    ended = last.happening.data
    if ended.get("status") != RunStatus.SUCCEEDED:
        error = ended.get("error")
        message = error.get("message") if isinstance(error, dict) else None
        detail = f"run {run_id} {ended.get('status')}: {message or 'no reason was given'}"
        return problem_response(502, detail, headers=headers, members={**ids, "error": error})
    return reply_of(ended.get("result"), _respond(await spine.feed.read(run_id)), headers)


def reply_of(result: JSONValue, respond: Mapping[str, JSONValue] | None, headers: Mapping[str, str]) -> Response:
    """Shape a run's result as an HTTP answer.

    `respond` is what a respond node gave out; without one, a result of the shape `{status, headers, body}` counts too.
    """
    status: JSONValue = 200
    own: JSONValue = {}
    body = result
    if respond is not None:
        status, own = respond.get("status", 200), respond.get("headers", {})
    if isinstance(result, dict) and result.keys() <= _SHAPE and ("status" in result or "body" in result):
        status, own = result.get("status", status), result.get("headers", own)
        body = result.get("body")
    # A result of the wrong shape is still the flow's answer: what can't be sent of it is left out.
    code = status if isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599 else 200
    sent = {**headers, **_GUARD, **_sendable(own)}
    kind = next((value for name, value in sent.items() if name.lower() == "content-type"), None)
    if body is None or code in (204, 304):
        return Response(status_code=code, headers=sent)
    if isinstance(body, str):
        return Response(body, code, headers=sent, media_type=None if kind else "text/plain")
    return Response(dumps(body), code, headers=sent, media_type=None if kind else "application/json")


def _respond(events: list[RunEvent]) -> Mapping[str, JSONValue] | None:
    """Find what a respond node gave out."""
    answering = {
        event.happening.node_id
        for event in events
        if event.happening.type is EventType.NODE_STARTED and event.happening.data.get("node_type") == "respond"
    }
    for event in events:
        if event.happening.type is EventType.NODE_COMPLETED and event.happening.node_id in answering:
            outputs = event.happening.data.get("outputs")
            return outputs if isinstance(outputs, dict) else None
    return None


def _sendable(headers: JSONValue) -> dict[str, str]:
    if not isinstance(headers, dict):
        return {}
    sent = {}
    for name, value in headers.items():
        text = value if isinstance(value, str) else dumps(value)
        clean = name.isascii() and all(mark.isalnum() or mark in "-_" for mark in name) and name
        if clean and text.isprintable() and text.isascii() and name.lower() not in _NOT_THE_FLOWS:
            sent[name] = text
    return sent
