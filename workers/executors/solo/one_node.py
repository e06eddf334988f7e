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
from workers.engine.solo_errors import as_nodes, limit_of, memory_of
from workers.executors.base import RunOrder
from workers.nodes.node import NodeError

#: How much longer than the node's own limit its run may take: the engine in there is to say it first.
_GRACE = timedelta(seconds=1)
_MS = timedelta(milliseconds=1)
#: What a node says while it runs.
_WORDS = frozenset({EventType.LOG, EventType.PROGRESS, EventType.DATA})


def one_node_run(order: SoloOrder, bounds: SoloBounds, *, most_ms: int = MAX_EXECUTION_TIME_MS) -> RunOrder:
    """Order the run. What the node is given there is to the letter what it would have been given among the others.

    `most_ms` is the limit of a node that says none: a day, where the flow that it stands in has a limit of its own, and
    is there to keep it.
    """
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
            settings=FlowSettings(max_execution_time_ms=_longest(order.node, most_ms)),
        ),
        payload=order.payload,
        backend_config=_wishes(order.node, bounds),
        past=past,
        egress=order.egress,
        may_park=False,
    )


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
                raise NodeError(as_nodes(error, self._node, self._bounds))
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
    return {"memory_mb": memory_of(node, bounds), **({"cpus": cpus} if cpus else {})}


def _longest(node: Node, most_ms: int) -> int:
    limit = limit_of(node)
    return most_ms if limit is None else min((limit + _GRACE) // _MS, MAX_EXECUTION_TIME_MS)
