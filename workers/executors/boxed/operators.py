"""What an operator has installed, for runs in boxes: custom nodes run in the worker, and its hooks hear there.

They are trusted and may need what no box has; what they are given comes from a box, and is checked like any document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx
import structlog
from pydantic import ValidationError

from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, RunError
from schemas.run import EventType, Happening
from workers.engine.hooks import Hook, NodeSeen, RunSeen, tell
from workers.engine.registry import Registered, Registry
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.nodes.node import NodeCall, NodeError, NodeTools
from workers.preparation.preparer import Preparer
from workers.runner import wire
from workers.sandboxes.base import NoCode
from workers.sandboxes.commands import CommandSandbox

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """Custom nodes by their type, hooks, and what such a node may use."""

    http: httpx.AsyncClient
    preparer: Preparer
    commands: CommandSandbox
    nodes: Registry = field(default_factory=lambda: MappingProxyType({}))
    hooks: Sequence[Hook] = ()

    def described(self) -> list[JSONValue]:
        """Describe the nodes for an engine that does not have them."""
        return [each.type.as_json() for each in self.nodes.values()]

    async def run_node(self, order: RunOrder, events: EventSink, asked: wire.Said) -> JSONValue:
        """Run a custom node; what goes wrong in it is its answer. Raises LookupError for what is none."""
        known = self.nodes[asked["type"]]
        node_id = asked["node_id"]
        if node_id not in {node.id for node in order.document.nodes}:
            raise LookupError(f"the run has no node {node_id!r}")
        try:
            outputs = await known.work.run(self._call(known, order, events, asked))
        except NodeError as failure:
            return {"error": failure.error.model_dump(mode="json")}
        except ValidationError as mistakes:
            return _error(ErrorKind.INVALID_INPUT, f"its config: {mistakes}")
        except Exception as bug:
            log.error("node.crashed", run_id=order.run_id, node_id=node_id, node_type=known.type.type, exc_info=bug)
            return _error(ErrorKind.INTERNAL, f"the node type {known.type.type} crashed: {type(bug).__name__}: {bug}")
        return {"outputs": dict(outputs)}

    def _call(self, known: Registered, order: RunOrder, events: EventSink, asked: wire.Said) -> NodeCall[Any]:
        node_id = str(asked["node_id"])

        def emit(type_: EventType, data: JSONObject) -> None:
            events.emit(Happening(type_, data, node_id))

        tools = NodeTools(
            code=NoCode(), http=self.http, preparer=self.preparer, box=self.commands, app=order.app,
            run_id=order.run_id, attempt=order.attempt, egress=order.egress,
        )  # fmt: skip
        return NodeCall(
            node_id=node_id, config=known.type.config.model_validate(asked["config"]), inputs=dict(asked["inputs"]),
            attempt=int(asked["attempt"]), tools=tools, emit=emit,
        )  # fmt: skip

    async def tell(self, order: RunOrder, asked: wire.Said) -> JSONValue:
        """Let the hooks hear of one moment of a run. Raises ValueError or LookupError for what is none."""
        run = RunSeen(run_id=order.run_id, app=order.app, flow=order.document.name, attempt=order.attempt)
        match asked["moment"]:
            case "before_flow":
                payload = asked["payload"]
                await tell(self.hooks, lambda hook: hook.before_flow(run, payload))
            case "after_flow":
                outcome = wire.outcome_from(asked["outcome"])
                await tell(self.hooks, lambda hook: hook.after_flow(run, outcome))
            case "before_node":
                node, inputs = _node(run, asked), dict(asked["inputs"])
                await tell(self.hooks, lambda hook: hook.before_node(node, inputs))
            case "after_node":
                node = _node(run, asked)
                result = RunError.model_validate(asked["error"]) if "error" in asked else dict(asked["outputs"])
                await tell(self.hooks, lambda hook: hook.after_node(node, result))
            case other:
                raise ValueError(f"{other!r} is no moment of a run")
        return None


def _node(run: RunSeen, asked: wire.Said) -> NodeSeen:
    return NodeSeen(
        run=run, node_id=str(asked["node_id"]), node_type=str(asked["node_type"]), attempt=int(asked["attempt"])
    )


def _error(kind: ErrorKind, message: str) -> JSONObject:
    return {"error": RunError(kind=kind, message=message).model_dump(mode="json")}
