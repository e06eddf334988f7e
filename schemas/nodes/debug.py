"""Node types that show what a flow is doing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port


class LogConfig(NodeConfig):
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: JSONValue = Field(default=None, description="used when no connection brings one")


DEBUG_LOG = NodeType(
    type="debug.log",
    category="debug",
    description="Writes a message to the run's log and passes it on.",
    inputs=(Port(name="message", description="a string as it is, anything else as JSON"),),
    outputs=(Port(name="message", description="the same value"),),
    config=LogConfig,
    example={"level": "info"},
)
