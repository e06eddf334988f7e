"""Which object does the work of which node type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from schemas.catalog import BUILT_IN as BUILT_IN_TYPES
from schemas.nodes.spec import NodeType
from workers.nodes.code import Code
from workers.nodes.control import Delay, Respond
from workers.nodes.debug import DebugLog
from workers.nodes.http import HttpRequest
from workers.nodes.node import Node
from workers.nodes.transform import JsonParse, JsonStringify


@dataclass(frozen=True, slots=True)
class Registered:
    """A node type and what does its work."""

    type: NodeType
    work: Node[Any]


Registry: TypeAlias = Mapping[str, Registered]

_WORK: dict[str, Node[Any]] = {
    "code.javascript": Code("javascript"),
    "code.typescript": Code("typescript"),
    "http.request": HttpRequest(),
    "transform.json_parse": JsonParse(),
    "transform.json_stringify": JsonStringify(),
    "time.delay": Delay(),
    "debug.log": DebugLog(),
    "respond": Respond(),
}

BUILT_IN: Registry = MappingProxyType(
    {node_type.type: Registered(node_type, _WORK[node_type.type]) for node_type in BUILT_IN_TYPES}
)
