"""Outcomes as JSON objects, for those who tell them to another process: an engine in a box, an executor elsewhere.

What is read is somebody else's word: whatever has not the shape raises ValueError, LookupError or TypeError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, TypeAlias, assert_never

from schemas.json import JSONObject
from schemas.outcome import (
    Cancelled,
    ChildCall,
    ChildNode,
    Failed,
    Outcome,
    Parked,
    Retry,
    RunError,
    Succeeded,
    Wait,
    WaitKind,
)  # fmt: skip
from schemas.waitpoint import is_waitpoint

Said: TypeAlias = Mapping[str, Any]


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


def _child_from(said: Said) -> ChildCall | ChildNode:
    if "given" in said:
        if not isinstance(said["given"], dict):
            raise TypeError("what a node is given is an object")
        return ChildNode(given=said["given"])
    version = said["version"]
    if not isinstance(version, int | None):
        raise TypeError("a version is a number")
    return ChildCall(flow=str(said["flow"]), version=version, payload=said["payload"])


def milliseconds(span: timedelta) -> float:
    return span / timedelta(milliseconds=1)
