"""What earlier attempts at a run have done, read from their happenings. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from schemas.flow import TAKES_FAILURES, FlowDocument
from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, RunError
from schemas.run import EventType, Happening
from schemas.waitpoint import opened_by
from workers.engine.advance import Checkpoint, Outputs

_STOPPED = (ErrorKind.CANCELLED, ErrorKind.LOST)


def recall(document: FlowDocument, past: Iterable[Happening]) -> Checkpoint:
    """Find the nodes that need not run again.

    A node that failed for good is tried anew, unless the flow went on without it: whoever attempts the run once more
    wants that. So is every failed node of a run that had already ended. One that was only stopped is always run again.
    """
    past = list(past)
    if not past:
        return Checkpoint()
    place = {node.id: index for index, node in enumerate(document.nodes)}
    awaited = _awaited(document)
    continues = document.settings.on_error == "ContinueOnError"
    done: dict[int, Outputs] = {}
    failed: dict[int, RunError] = {}
    attempts: dict[int, int] = {}
    failures: dict[int, int] = {}
    parts: dict[int, dict[int, JSONValue]] = {}
    waits: dict[int, JSONObject] = {}
    answers: dict[str, JSONObject] = {}
    opened: set[str] = set()
    woken: datetime | None = None
    round_ = 1
    for said in past:
        if said.type is EventType.RUN_COMPLETED and not continues:
            failed.clear()
        if said.type is EventType.RUN_RESUMED:
            woken = _later(woken, said.data.get("until"))
            waitpoint, answer = said.data.get("waitpoint"), said.data.get("answer")
            if isinstance(waitpoint, str) and isinstance(answer, dict):
                answers[waitpoint] = answer
        node = place.get(said.node_id or "")
        if node is None:
            continue
        if _number(said.data.get("round")) > round_:
            round_ = _number(said.data.get("round"))
            for of_the_round in (done, failed, failures, parts, waits):
                of_the_round.clear()
        if (opening := opened_by(said.data)) is not None:
            opened.add(opening[0])
        if said.type in (EventType.NODE_RETRYING, EventType.NODE_FAILED) and _kind(said) not in _STOPPED:
            waits.pop(node, None)  # its next try waits anew; one that was only stopped still waits for the same
        match said.type:
            case EventType.NODE_STARTED:
                attempts[node] = max(attempts.get(node, 0), _number(said.data.get("attempt")))
            case EventType.NODE_COMPLETED:
                outputs = said.data.get("outputs")
                done[node] = outputs if isinstance(outputs, dict) else {}
            case EventType.DATA if isinstance(noted := said.data.get("wait"), dict):
                waits[node] = noted
            case EventType.DATA if isinstance(part := said.data.get("part"), int):
                parts.setdefault(node, {})[part] = said.data.get("value")
            case EventType.NODE_RETRYING if _kind(said) != ErrorKind.LOST:
                failures[node] = failures.get(node, 0) + 1
            case EventType.NODE_FAILED:
                failures.pop(node, None)
                if (continues or said.node_id in awaited) and _kind(said) != ErrorKind.CANCELLED:
                    failed[node] = RunError.model_validate(_error(said))
    return Checkpoint(
        done=done, failed=failed, attempts=attempts, failures=failures, parts=parts, waits=waits, answers=answers,
        opened=opened, woken=woken, round=round_,
    )  # fmt: skip


def _awaited(document: FlowDocument) -> frozenset[str]:
    """Name the nodes for whose failure some other node waits."""
    takers = {node.id for node in document.nodes if node.trigger_rule in TAKES_FAILURES}
    return frozenset(wire.from_node for wire in document.connections if wire.to_node in takers)


def _error(said: Happening) -> JSONObject:
    error = said.data.get("error")
    return error if isinstance(error, dict) else {}


def _kind(said: Happening) -> JSONValue:
    return _error(said).get("kind")


def _later(known: datetime | None, until: JSONValue) -> datetime | None:
    if not isinstance(until, str):
        return known
    moment = datetime.fromisoformat(until)
    return moment if known is None else max(known, moment)


def _number(value: JSONValue) -> int:
    return value if isinstance(value, int) else 1
