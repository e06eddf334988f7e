"""How values get from output ports to input ports, and from the last nodes to the run's result. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType

from schemas.flow import ERROR_PORT
from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import NodeType
from schemas.outcome import ErrorKind, RunError
from schemas.wording import short
from workers.engine.graph import Graph, Wire
from workers.nodes.node import node_error

#: The node type whose answer is the run's result.
ANSWERING = "respond"


def root_inputs(node_type: NodeType, fixed: Mapping[str, JSONValue], payload: JSONValue) -> JSONObject:
    """Give a root each key of the payload as a port, and the whole as `payload`; what the config says wins."""
    offered = {**payload, "payload": payload} if isinstance(payload, dict) else {"payload": payload}
    if node_type.open_inputs:
        return {**offered, **fixed}
    return {**{port.name: offered[port.name] for port in node_type.inputs if port.name in offered}, **fixed}


def wired_inputs(
    wires: Sequence[Wire],
    fixed: Mapping[str, JSONValue],
    outputs: Mapping[int, Mapping[str, JSONValue]],
    errors: Mapping[int, RunError] = MappingProxyType({}),
) -> JSONObject:
    """Give a node what its connections bring; what they don't bring may be in the config, or stays away.

    Of several connections to one port the first in the document that brings something counts. A node that failed has
    its error at the port `error`.
    """
    brought: JSONObject = {}
    for wire in wires:
        if wire.to_port in brought:
            continue
        given = outputs.get(wire.source)
        if given is not None:
            if wire.from_port in given:
                brought[wire.to_port] = given[wire.from_port]
        elif wire.from_port == ERROR_PORT and wire.source in errors:
            brought[wire.to_port] = errors[wire.source].model_dump(mode="json", exclude_none=True)
    return {**fixed, **brought}


def check_inputs(node_type: NodeType, inputs: Mapping[str, JSONValue]) -> None:
    """Raise NodeError(invalid_input) when a required port is empty or a value has the wrong type."""
    for port in node_type.inputs:
        if port.name not in inputs:
            if port.required:
                raise node_error(
                    ErrorKind.INVALID_INPUT,
                    f'missing required input "{port.name}" ({port.description}) was not given',
                    port=port.name,
                )
        elif port.type != "any" and json_type(inputs[port.name]) not in ACCEPTED[port.type]:
            value = inputs[port.name]
            raise node_error(
                ErrorKind.INVALID_INPUT,
                f'input "{port.name}" must be of type {port.type}; given {json_type(value)}: {short(value)}',
                port=port.name,
            )


def json_type(value: JSONValue) -> str:
    """Name the JSON type of a value."""
    if isinstance(value, float) and value.is_integer():
        return "integer"
    return _NAMES.get(type(value), "unknown")


_NAMES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    tuple: "array",
    dict: "object",
}
ACCEPTED = {
    "string": {"string"},
    "number": {"number", "integer"},
    "integer": {"integer"},
    "boolean": {"boolean"},
    "object": {"object"},
    "array": {"array"},
}


def result_of(
    graph: Graph,
    ids: Sequence[str],
    node_types: Sequence[str],
    outputs: Mapping[int, Mapping[str, JSONValue]],
    *,
    skipped: Set[int] = frozenset(),
) -> JSONValue:
    """Give the run's result: what `respond` answered, else the only leaf's outputs, else `{leaf id: outputs}`.

    A leaf is a node that ran and that nothing which ran depends on. Of several answers the one whose node stands first
    in the document counts, whichever came first.
    """
    for node, node_type in enumerate(node_types):
        if node_type == ANSWERING and "value" in outputs.get(node, {}):
            return outputs[node]["value"]
    leaves = [
        node for node, after in enumerate(graph.after) if node not in skipped and all(each in skipped for each in after)
    ]
    if len(leaves) == 1:
        return dict(outputs.get(leaves[0], {}))
    return {ids[leaf]: dict(outputs.get(leaf, {})) for leaf in leaves}
