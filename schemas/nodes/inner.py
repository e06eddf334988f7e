"""flow.map and flow.race: node types that hold whole flows inside their config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from schemas.flow import (
    Connection,
    FlowDocument,
    FlowSettings,
    Name,
    Node,
    NodePlace,
    NodeResources,
    Part,
    RetryPolicy,
    Whole,
)  # fmt: skip
from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port

#: Items that one flow.map goes through.
MAX_ITEMS = 100_000


class InnerFlow(Part):
    """A flow without a name of its own."""

    nodes: tuple[Node, ...] = Field(min_length=1, max_length=1000)
    connections: tuple[Connection, ...] = ()
    settings: FlowSettings = FlowSettings()

    def document(self, name: str) -> FlowDocument:
        return FlowDocument(name=name, nodes=self.nodes, connections=self.connections, settings=self.settings)


class InnerNode(Part):
    """The short form of a flow that has one node."""

    node_type: Name
    config: JSONObject = Field(default={})
    retry_policy: RetryPolicy | None = None
    execution_mode: NodePlace | None = None
    resources: NodeResources | None = None


class MapConfig(NodeConfig):
    flow: InnerFlow | None = Field(default=None, description="what is run for each item")
    node: InnerNode | None = Field(default=None, description="the same, when it is one node")
    items: list[JSONValue] | None = Field(default=None, description="used when no connection brings any")
    item_port: Name = Field(default="item", alias="as", description="the key of the inner payload that holds the item")
    max_parallel: Whole = Field(default=10, ge=1, le=1000, description="items that are worked on at once")
    on_item_error: Literal["stop", "continue"] = Field(
        default="stop", description="continue: null stands for the result of an item that failed"
    )
    max_output_bytes: Whole = Field(
        default=10_000_000, ge=1, le=100_000_000, description="limit on all results together, as JSON"
    )

    @model_validator(mode="after")
    def _one_work(self) -> MapConfig:
        if (self.flow is None) is (self.node is None):
            raise ValueError('say what to do with each item: either "flow" (nodes, connections) or "node" (one node)')
        return self

    def inner_at_once(self) -> int:
        return self.max_parallel

    def inner_flows(self) -> Mapping[str, FlowDocument]:
        if self.flow is not None:
            return {"flow": self.flow.document("flow")}
        assert self.node is not None
        return {"node": InnerFlow(nodes=(Node(id="node", **dict(self.node)),)).document("node")}


class RaceConfig(NodeConfig):
    flows: dict[Name, InnerFlow] = Field(min_length=2, max_length=20, description="the first that succeeds wins")

    def inner_at_once(self) -> int:
        return len(self.flows)

    def inner_flows(self) -> Mapping[str, FlowDocument]:
        return {f"flows.{name}": flow.document(name) for name, flow in self.flows.items()}


FLOW_MAP = NodeType(
    type="flow.map",
    category="control",
    description="Runs a node or a flow for each item of an array, several at once, and gathers the results in order.",
    inputs=(Port(name="items", type="array", required=True, description="what to work on"),),
    outputs=(
        Port(name="results", type="array", description="the result of each item, in the order of the items"),
        Port(name="errors", type="array", description="{index, error} of each item that failed"),
        Port(name="succeeded", type="integer", description="how many items succeeded"),
    ),
    open_inputs=True,
    config=MapConfig,
    example={"node": {"node_type": "http.request", "config": {"method": "GET"}}, "as": "url", "max_parallel": 4},
)

_ONE: JSONObject = {"nodes": [{"id": "get", "node_type": "http.request", "config": {"url": "https://one.example.com"}}]}
_TWO: JSONObject = {"nodes": [{"id": "get", "node_type": "http.request", "config": {"url": "https://two.example.com"}}]}

FLOW_RACE = NodeType(
    type="flow.race",
    category="control",
    description="Runs several flows at once; the first that succeeds wins, the others are cancelled.",
    inputs=(Port(name="data", description="any other input is passed on to each flow as well"),),
    outputs=(
        Port(name="output", description="the result of the winner"),
        Port(name="winner", type="string", description="its name"),
    ),
    open_inputs=True,
    config=RaceConfig,
    example={"flows": {"one": _ONE, "two": _TWO}},
)
