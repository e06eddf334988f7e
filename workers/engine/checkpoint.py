"""What earlier attempts at a run have done, read from their happenings. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.flow import FlowDocument
from schemas.json import JSONValue
from schemas.outcome import ErrorKind
from schemas.run import EventType, Happening
from workers.engine.advance import Checkpoint, Outputs


def recall(document: FlowDocument, past: Iterable[Happening]) -> Checkpoint:
    """Find the nodes that need not run again.

    A node that failed for good is tried anew, unless the flow went on without it: whoever attempts the run once more
    wants that. One that was only stopped is always run again.
    """
    place = {node.id: index for index, node in enumerate(document.nodes)}
    goes_on = document.settings.on_error == "ContinueOnError"
    done: dict[int, Outputs] = {}
    attempts: dict[int, int] = {}
    failures: dict[int, int] = {}
    round_ = 1
    for said in past:
        node = place.get(said.node_id or "")
        if node is None:
            continue
        if _number(said.data.get("round")) > round_:
            round_ = _number(said.data.get("round"))
            done.clear()
            failures.clear()
        match said.type:
            case EventType.NODE_STARTED:
                attempts[node] = max(attempts.get(node, 0), _number(said.data.get("attempt")))
            case EventType.NODE_COMPLETED:
                outputs = said.data.get("outputs")
                done[node] = outputs if isinstance(outputs, dict) else {}
            case EventType.NODE_RETRYING if _kind(said) != ErrorKind.LOST:
                failures[node] = failures.get(node, 0) + 1
            case EventType.NODE_FAILED:
                failures.pop(node, None)
                if goes_on and _kind(said) != ErrorKind.CANCELLED:
                    done[node] = {}
    return Checkpoint(done=done, attempts=attempts, failures=failures, round=round_)


def _kind(said: Happening) -> JSONValue:
    error = said.data.get("error")
    return error.get("kind") if isinstance(error, dict) else None


def _number(value: JSONValue) -> int:
    return value if isinstance(value, int) else 1
