"""What a worker and a runner elsewhere say to each other: JSON objects, one to a line, both ways.

worker to runner:
    {"do": "know", "key", "document"}                 a flow document, for runs that name its key
    {"do": "run", "run", "key", "order"}              `run` is the worker's number for it
    {"do": "cancel", "run"}
    {"do": "answer", "ask", "value"}                  to what was asked
    {"do": "output", "ask", "stream", "line"}         of a command that was asked for, base64
runner to worker:
    {"say": "ready"}                                  first of all
    {"say": "event", "run", "type", "data", "node_id", "time"}
    {"say": "ask", "ask", "run", "what", "order"}     `what`: flush, prepare, command, python, shared, node, hook
    {"say": "drop", "ask"}                            nobody waits for the answer any more
    {"say": "done", "run", "outcome"}                 last of a run

The worker believes nothing that it hears: a runner holds other people's code. This module is the words; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from schemas.json import JSONObject
from schemas.outcome import Cancelled, ChildCall, Failed, Outcome, Parked, Retry, RunError, Succeeded, Wait, WaitKind
from schemas.run import EventType, Happening
from schemas.waitpoint import is_waitpoint
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared, Recipe

#: What a runner may tell of a run; its beginning and its end are the dispatcher's to tell.
TOLD = frozenset(
    {
        EventType.NODE_STARTED, EventType.NODE_COMPLETED, EventType.NODE_FAILED, EventType.NODE_RETRYING,
        EventType.LOG, EventType.PROGRESS, EventType.DATA,
    }
)  # fmt: skip

Said = Mapping[str, Any]


def happening_to(said: Happening) -> JSONObject:
    return {"type": said.type.value, "data": said.data, "node_id": said.node_id, "time": said.time.timestamp()}


def happening_from(said: Said) -> Happening:
    data, node_id = said["data"], said["node_id"]
    if not isinstance(data, dict) or not isinstance(node_id, str | None):
        raise TypeError("an event needs an object as data, and a node's id or none")
    return Happening(EventType(said["type"]), data, node_id, datetime.fromtimestamp(float(said["time"]), UTC))


def outcome_to(outcome: Outcome) -> JSONObject:
    match outcome:
        case Succeeded(result=result):
            return {"is": "succeeded", "result": result}
        case Failed(error=error):
            return {"is": "failed", "error": error.model_dump(mode="json")}
        case Cancelled(reason=reason):
            return {"is": "cancelled", "reason": reason}
        case Retry(after=after, reason=reason):
            return {"is": "retry", "after_ms": milliseconds(after), "reason": reason}
        case Parked(waits=waits):
            return {"is": "parked", "waits": [_wait_to(wait) for wait in waits]}
        case _:
            assert_never(outcome)


def outcome_from(said: Said) -> Outcome:
    match said["is"]:
        case "succeeded":
            return Succeeded(result=said["result"])
        case "failed":
            return Failed(error=RunError.model_validate(said["error"]))
        case "cancelled":
            return Cancelled(reason=str(said["reason"]))
        case "retry":
            return Retry(after=timedelta(milliseconds=said["after_ms"]), reason=str(said["reason"]))
        case "parked":
            return Parked(waits=tuple(_wait_from(wait) for wait in said["waits"]))
        case other:
            raise ValueError(f"{other!r} is not an outcome")


def _wait_to(wait: Wait) -> JSONObject:
    return {
        "node_id": wait.node_id,
        "kind": str(wait.kind),
        "until": None if wait.until is None else wait.until.isoformat(),
        "waitpoint": wait.waitpoint,
        "url": wait.url,
        "message": wait.message,
        "child": None if wait.child is None else asdict(wait.child),
    }


def _wait_from(said: Said) -> Wait:
    kind, waitpoint, url = WaitKind(said["kind"]), said["waitpoint"], said["url"]
    message = said["message"]
    if not isinstance(said["node_id"], str) or not isinstance(url, str | None) or not isinstance(message, str | None):
        raise TypeError("a wait needs a node's id, and texts or none as its URL and its message")
    if (kind is WaitKind.DELAY) is (waitpoint is not None) or not (waitpoint is None or is_waitpoint(waitpoint)):
        raise ValueError("a delay has no waitpoint, and any other wait has one")
    until = None if said["until"] is None else datetime.fromisoformat(said["until"])
    if until is None and kind is WaitKind.DELAY:
        raise ValueError("a delay ends at some time")
    child = None if said["child"] is None else _child_from(said["child"])
    if (kind is WaitKind.CHILD) is (child is None):
        raise ValueError("a wait for a child says which, and no other does")
    return Wait(
        node_id=said["node_id"], kind=kind, until=until, waitpoint=waitpoint, url=url, message=message, child=child
    )


def _child_from(said: Said) -> ChildCall:
    version = said["version"]
    if not isinstance(version, int | None):
        raise TypeError("a version is a number")
    return ChildCall(flow=str(said["flow"]), version=version, payload=said["payload"])


def recipe_to(recipe: Recipe) -> JSONObject:
    return {
        "source": recipe.source,
        "language": recipe.language,
        "dependencies": [list(one) for one in recipe.dependencies],
    }


def recipe_from(said: Said) -> Recipe:
    if said["language"] not in ("javascript", "typescript"):
        raise ValueError("not a language")
    dependencies = tuple((str(name), str(version)) for name, version in said["dependencies"])
    return Recipe(str(said["source"]), said["language"], dependencies)


def preparation_to(preparation: Preparation) -> JSONObject:
    match preparation:
        case Prepared():
            return {"is": "prepared", "code": preparation.code, "source_map": preparation.source_map}
        case Flaw():
            return {"is": "flaw", **asdict(preparation)}
        case _:
            assert_never(preparation)


def preparation_from(said: Said) -> Preparation:
    if said["is"] == "prepared":
        return Prepared(code=said["code"], source_map=said["source_map"])
    return Flaw(
        kind=said["kind"],
        message=said["message"],
        line=said["line"],
        column=said["column"],
        lasts=Lasts(said["lasts"]),
    )


def milliseconds(span: timedelta) -> float:
    return span / timedelta(milliseconds=1)
