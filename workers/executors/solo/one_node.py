"""Makes of one try at one node a run that has no other, and of how that ended what the node gives.

So whatever executes runs can have a node for itself, and the engine in there is the same as anywhere. The run is that
of a flow of two nodes: one that stands for all that went before, and is done already, and the node itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import assert_never

from schemas.flow import MAX_EXECUTION_TIME_MS, Connection, FlowDocument, FlowSettings, Node, NodeResources
from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import MOST_CPUS, SoloBounds
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Parked, Retry, RunError, Succeeded
from schemas.run import EventType, Happening
from schemas.solo import made_to_stay
from workers.engine.sink import EventSink
from workers.engine.solo import SoloOrder
from workers.executors.base import RunOrder
from workers.nodes.node import NodeError, too_long

#: How much longer than the node's own limit its run may take: the engine in there is to say it first.
_GRACE = timedelta(seconds=1)
_MS = timedelta(milliseconds=1)
#: What is raised for a run that takes too long.
_FLOWS_LIMIT = "settings.max_execution_time_ms"
#: What a node says while it runs.
_WORDS = frozenset({EventType.LOG, EventType.PROGRESS, EventType.DATA})


def one_node_run(order: SoloOrder, bounds: SoloBounds) -> RunOrder:
    """Order the run. What the node is given there is to the letter what it would have been given among the others."""
    before = "before" if order.node.id != "before" else "before it"
    nodes: tuple[Node, ...] = (made_to_stay(order.node),)
    connections: tuple[Connection, ...] = ()
    past = [*_earlier(order)]
    if order.brought is not None:
        nodes = (Node(id=before, node_type="debug.log"), *nodes)
        # One that brings nothing says that the node is fed, when nothing is what it was fed with.
        connections = tuple(
            Connection(from_node=before, from_port=port, to_node=order.node.id, to_port=port)
            for port in order.brought or ("nothing",)
        )
        past.append(Happening(EventType.NODE_COMPLETED, {"outputs": order.brought}, before))
    return RunOrder(
        run_id=order.run_id,
        app=order.app,
        flow=order.node.id,
        version=0,
        attempt=order.run_attempt,
        document=FlowDocument(
            name="alone",
            nodes=nodes,
            connections=connections,
            settings=FlowSettings(max_execution_time_ms=_longest(order)),
        ),
        payload=order.payload,
        backend_config=_wishes(order.node, bounds),
        past=past,
        egress=order.egress,
        may_park=False,
    )


def limit_of(node: Node) -> timedelta | None:
    """Tell how long the node may take, if it says so."""
    limit: JSONValue = node.resources.timeout_ms if node.resources is not None else None
    match node.config:
        case {"timeout_ms": int() | float() as given} if limit is None:
            limit = given
        case {"timeout": int() | float() as given} if limit is None:
            limit = given * 1000
    if not isinstance(limit, int | float):
        return None
    return timedelta(milliseconds=min(limit, MAX_EXECUTION_TIME_MS))  # a config is not checked before it is read


class Listener:
    """Passes on what the node says, and keeps what it gives."""

    def __init__(self, node: Node, events: EventSink, bounds: SoloBounds) -> None:
        self._node = node
        self._events = events
        self._bounds = bounds
        self._outputs: JSONObject | None = None

    def emit(self, happening: Happening) -> None:
        if happening.type in _WORDS:
            self._events.emit(happening)
        elif happening.type is EventType.NODE_COMPLETED and happening.node_id == self._node.id:
            outputs = happening.data.get("outputs")
            self._outputs = outputs if isinstance(outputs, dict) else {}

    async def flush(self) -> None:
        await self._events.flush()

    def given(self, outcome: Outcome) -> Mapping[str, JSONValue]:
        """Give what the node gave; raise NodeError when its run ended in any other way."""
        match outcome:
            case Succeeded() if self._outputs is not None:
                return self._outputs
            case Succeeded():
                raise NodeError(RunError(kind=ErrorKind.INTERNAL, message="its run ended without a word of it"))
            case Failed(error=error):
                raise NodeError(_as_nodes(error, self._node, self._bounds))
            case Retry(reason=reason) | Cancelled(reason=reason):
                raise NodeError(RunError(kind=ErrorKind.LOST, message=f"the node's own sandbox was lost: {reason}"))
            case Parked():
                raise NodeError(RunError(kind=ErrorKind.INTERNAL, message="its run was left where nobody waits for it"))
            case _:
                assert_never(outcome)


def _earlier(order: SoloOrder) -> list[Happening]:
    """Tell of earlier tries: their number, and the parts of the work that they have done."""
    node = order.node.id
    earlier = [Happening(EventType.NODE_STARTED, {"attempt": order.attempt - 1}, node)] if order.attempt > 1 else []
    parts = [Happening(EventType.DATA, {"part": part, "value": value}, node) for part, value in order.kept.items()]
    return [*earlier, *parts]


def _wishes(node: Node, bounds: SoloBounds) -> JSONObject:
    """Ask for what the node has, in the words of the executors; what it does not say is the most that it may."""
    asked = node.resources or NodeResources()
    cpus = asked.cpus or (bounds.cpus if bounds.cpus < MOST_CPUS else None)
    return {"memory_mb": _memory_mb(node, bounds), **({"cpus": cpus} if cpus else {})}


def _memory_mb(node: Node, bounds: SoloBounds) -> int:
    return (node.resources and node.resources.memory_mb) or bounds.memory_mb


def _longest(order: SoloOrder) -> int:
    limit = limit_of(order.node)
    if limit is None:
        return MAX_EXECUTION_TIME_MS  # the flow that the node stands in has a limit, and is there to keep it
    return min((limit + _GRACE) // _MS, MAX_EXECUTION_TIME_MS)


def _as_nodes(error: RunError, node: Node, bounds: SoloBounds) -> RunError:
    """Word an error for whoever wrote the node: its run, and that run's limits, are none of his.

    The sandbox may have been made to say anything, so its numbers are not taken from it.
    """
    details = error.details or {}
    limit = limit_of(node)
    by_resources = node.resources is not None and node.resources.timeout_ms is not None
    match error.kind, details.get("raise_with"):
        case ErrorKind.MEMORY_EXCEEDED, "FLO_BOX_MEMORY_MB":
            most = _memory_mb(node, bounds)
            message = (
                f"the node's own sandbox used more memory than its limit of {most:,} MB, engine and code together; use "
                "less, or raise resources.memory_mb"
            )
            told: JSONObject = {**details, "limit": most, "raise_with": "resources.memory_mb"}
            return RunError(kind=error.kind, message=message, details=told)
        case ErrorKind.TIMED_OUT, str(key) if limit and (key == _FLOWS_LIMIT or (by_resources and "timeout" in key)):
            key = "resources.timeout_ms" if by_resources else "timeout_ms in its config"
            return too_long(limit, raise_with=key).error.model_copy(
                update={"details": {**details, "limit_ms": limit // _MS, "raise_with": key}}
            )
        case _:
            return error.model_copy(update={"node_id": None})
