"""How a run's nodes stand, folded from what happened. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.flow import FlowDocument
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from schemas.run import EventType, Happening, NodeView

_UNFINISHED = ("running", "retrying", "waiting")


def nodes_from(document: FlowDocument, happenings: Iterable[Happening]) -> list[NodeView]:
    """Show every node of the document, in its order; happenings of nodes that it does not have are passed over."""
    views = {
        node.id: NodeView(id=node.id, node_type=node.node_type, status="pending", attempts=0) for node in document.nodes
    }
    for said in happenings:
        match said.type:
            case EventType.RUN_STARTED:
                _reopen(views.values())
            case EventType.RUN_WAITING:
                _park(views, said)
            case EventType.RUN_COMPLETED:
                _close(views.values(), said)
            case _ if said.node_id in views:
                _apply(views[said.node_id], said)
    return list(views.values())


def _apply(view: NodeView, said: Happening) -> None:
    match said.type:
        case EventType.NODE_STARTED:
            view.status, view.attempts = "running", _attempt(said, view)
            view.started_at = view.started_at or said.time
            view.finished_at = view.outputs = view.error = None
        case EventType.NODE_COMPLETED:
            view.status, view.finished_at = "succeeded", said.time
            view.outputs, view.error = said.data.get("outputs"), None
        case EventType.NODE_RETRYING:
            view.status, view.error = "retrying", _error(said.data.get("error"))
        case EventType.NODE_FAILED:
            view.status, view.finished_at = "failed", said.time
            view.error = _error(said.data.get("error"))


def _attempt(said: Happening, view: NodeView) -> int:
    attempt = said.data.get("attempt")
    return attempt if isinstance(attempt, int) else view.attempts + 1


def _error(data: JSONValue) -> RunError:
    return RunError.model_validate(data)


def _reopen(views: Iterable[NodeView]) -> None:
    """A new attempt at the run may yet come to what the last one left out."""
    for view in views:
        if view.status == "skipped":
            view.status = "pending"


def _park(views: Mapping[str, NodeView], said: Happening) -> None:
    waits = said.data.get("waits")
    for wait in waits if isinstance(waits, list) else ():
        if isinstance(wait, dict) and (view := views.get(str(wait.get("node_id")))) is not None:
            view.status = "waiting"


def _close(views: Iterable[NodeView], said: Happening) -> None:
    for view in views:
        if view.status == "pending":
            view.status = "skipped"
        elif view.status in _UNFINISHED:  # its worker died, and nobody was left to say so
            message = "the run ended before this node did"
            view.status, view.finished_at = "failed", said.time
            view.error = view.error or RunError(kind=ErrorKind.LOST, message=message, node_id=view.id)
