"""Every request that the client makes, as a value: the sync and the async client send the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from flo.errors import Mistake
from flo.wire import JSONValue

API = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    method: str
    path: str
    body: JSONValue = None
    query: Mapping[str, str | int | float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class InvokeOptions(TypedDict, total=False):
    """What a caller may add to an invocation."""

    version: int
    #: Where it runs, if not where the server would run it: `http`, `docker`, `namespace`, ...
    mode: str
    backend_config: dict[str, JSONValue]
    #: 0 is the most urgent, 9 the least.
    priority: int
    run_at: datetime
    concurrency_key: str


def push(app: str, flow: str, document: JSONValue) -> Call:
    return Call(method="PUT", path=_path("apps", app, "flows", flow), body=document)


def flow(app: str, name: str) -> Call:
    return Call(method="GET", path=_path("apps", app, "flows", name))


def put_event(
    app: str, event: str, *, kind: str, flow: str, config: Mapping[str, JSONValue] | None, version: int | None
) -> Call:
    body: dict[str, JSONValue] = {"kind": kind, "flow": flow, "config": dict(config or {})}
    if version is not None:
        body["version"] = version
    return Call(method="PUT", path=_path("apps", app, "events", event), body=body)


def event(app: str, name: str) -> Call:
    return Call(method="GET", path=_path("apps", app, "events", name))


def events(app: str, *, kind: str | None, limit: int) -> Call:
    return Call(method="GET", path=_path("apps", app, "events"), query=_given(kind=kind, limit=limit))


def delete_event(app: str, name: str) -> Call:
    return Call(method="DELETE", path=_path("apps", app, "events", name))


def on_event(app: str, name: str, verb: str) -> Call:
    """Do `pause`, `resume` or `fire` to an event."""
    return Call(method="POST", path=_path("apps", app, "events", name, verb))


def invoke(app: str, event: str, payload: JSONValue, **options: Unpack[InvokeOptions]) -> Call:
    path = _path("apps", app, "events", event, "invoke")
    return Call(method="POST", path=path, body=_invocation(payload, options), headers={"Accept": "application/json"})


def invoke_async(
    app: str, event: str, payload: JSONValue, *, idempotency_key: str | None, **options: Unpack[InvokeOptions]
) -> Call:
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    path = _path("apps", app, "events", event, "invoke", "async")
    return Call(method="POST", path=path, body=_invocation(payload, options), headers=headers)


def run(run_id: str) -> Call:
    return Call(method="GET", path=_path("runs", run_id))


def runs(*, app: str | None, status: str | None, lane: str | None, cursor: str | None, limit: int) -> Call:
    query = _given(app=app, status=status, lane=lane, cursor=cursor, limit=limit)
    return Call(method="GET", path=_path("runs"), query=query)


def on_run(run_id: str, verb: str) -> Call:
    """Do `cancel` or `retry` to a run."""
    return Call(method="POST", path=_path("runs", run_id, verb))


def retry(run_id: str, *, from_node: str | None = None) -> Call:
    """Run it once more: all of it, or from a node on."""
    body: JSONValue = None if from_node is None else {"from_node": from_node}
    return Call(method="POST", path=_path("runs", run_id, "retry"), body=body)


def run_events(run_id: str, *, after: int, timeout: float) -> Call:
    return Call(method="GET", path=_path("runs", run_id, "events"), query={"after": after, "timeout": timeout})


def run_stream(run_id: str, *, after: int) -> Call:
    headers = {"Last-Event-ID": str(after)} if after else {}
    return streamed(Call(method="GET", path=_path("runs", run_id, "events"), headers=headers))


def dead_letters(*, limit: int) -> Call:
    return Call(method="GET", path=_path("dead-letters"), query={"limit": limit})


def dead_letter(name: str) -> Call:
    """Read one: a run or a message, by its id."""
    return Call(method="GET", path=_path("dead-letters", name))


def redrive(run_id: str) -> Call:
    return Call(method="POST", path=_path("dead-letters", run_id, "redrive"))


def redrive_all(*, app: str | None, flow: str | None) -> Call:
    return Call(method="POST", path=_path("dead-letters", "redrive"), query=_given(app=app, flow=flow))


def discard(message_id: str) -> Call:
    return Call(method="DELETE", path=_path("dead-letters", message_id))


def limits(app: str) -> Call:
    return Call(method="GET", path=_path("apps", app, "limits"))


def put_limits(app: str, limits: JSONValue) -> Call:
    return Call(method="PUT", path=_path("apps", app, "limits"), body=limits)


def metrics() -> Call:
    return Call(method="GET", path="/metrics")


def streamed(call: Call) -> Call:
    """Ask for the same as a stream of server-sent events."""
    headers = {**call.headers, "Accept": "text/event-stream"}
    return Call(method=call.method, path=call.path, body=call.body, query=call.query, headers=headers)


def _path(*names: str) -> str:
    for name in names:
        # A path is tidied up on its way: these would name another resource than the one that was meant.
        if name in ("", ".", "..") or "/" in name:
            raise Mistake(
                f'"{name}" can\'t name anything here: give a name or id that is not empty, "." or "..", without "/"'
            )
    return "/".join([API, *(quote(name, safe="") for name in names)])


def _given(**query: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in query.items() if value is not None}


def _invocation(payload: JSONValue, options: Mapping[str, Any]) -> JSONValue:
    said = {name: v.isoformat() if isinstance(v, datetime) else v for name, v in options.items()}
    return {"payload": payload, **said}
