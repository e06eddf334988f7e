"""Nodes that park their run, and where that can't be done: in a flow that is a part of another run."""

from __future__ import annotations

from typing import Final

from schemas.errors import Problem
from schemas.flow import FlowDocument, Node
from schemas.nodes.call import FLOW_CALL
from schemas.nodes.control import LONGEST_SLEEP_MS, TIME_DELAY
from schemas.nodes.spec import NodeConfig
from schemas.nodes.wait import WAIT_APPROVAL, WAIT_URL, WAIT_WEBHOOK

#: Node types that park their run, always or as they are configured.
_PARKING: Final = {one.type: one for one in (FLOW_CALL, TIME_DELAY, WAIT_APPROVAL, WAIT_URL, WAIT_WEBHOOK)}


def parks_inside(node: Node, config: NodeConfig, *, path: str) -> Problem | None:
    """Word the mistake of a node that would park, in a flow inside another node, whose parts have no checkpoint."""
    if not config.parks():
        return None
    match node.node_type:
        case TIME_DELAY.type:
            instead = f"make it {LONGEST_SLEEP_MS:,} ms or less, or "
        case FLOW_CALL.type:
            instead = 'set mode: "inline", or '
        case _:
            instead = ""
    message = f'node "{node.id}": {_named(node)} parks its run, and the flow inside a node can\'t be parked'
    return Problem(path=path, message=message, fix=f"{instead}move it out of the flow that is inside")


def first_to_park(document: FlowDocument) -> str | None:
    """Name the first node of a valid document that would park its run, with what it is."""
    for node in document.nodes:
        node_type = _PARKING.get(node.node_type)
        if node_type is not None and node_type.config.model_validate(node.config).parks():
            return f'node "{node.id}" ({_named(node)})'
    return None


def _named(node: Node) -> str:
    match node.node_type:
        case TIME_DELAY.type:
            return f"a time.delay of more than {LONGEST_SLEEP_MS:,} ms"
        case FLOW_CALL.type:
            return 'a flow.call with mode: "run"'
    return node.node_type
