"""flow.call: a node that runs another flow of the same app."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Literal

from pydantic import Field

from schemas.flow import FlowDocument, Name, Whole
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port, PushLimits, Refusal

FLOW_CALL_TYPE = "flow.call"


class CallConfig(NodeConfig):
    flow: Name = Field(description="the flow of the same app that is called")
    version: Whole | None = Field(default=None, ge=1, description="one version of it; unless given, the newest")
    mode: Literal["inline", "run"] = Field(
        default="inline", description="inline: inside this run; run: as a run of its own, for which this one is parked"
    )
    payload: JSONValue = Field(default=None, description="what it gets, when no connection brings a payload")
    document: FlowDocument | None = Field(default=None, description="written by the worker: the document that it found")
    unlinked: str | None = Field(default=None, description="written by the worker: why it found none")

    def engine_limit(self) -> timedelta | None:
        """Leave the limit to the node where it counts while no worker has the run."""
        return self.limit if self.mode == "inline" else None

    def parks(self) -> bool:
        return self.mode == "run"

    def inner_flows(self) -> Mapping[str, FlowDocument]:
        return {"document": self.document} if self.document is not None else {}

    def refusals(self, limits: PushLimits) -> Iterator[Refusal]:
        for key in ("document", "unlinked"):
            if getattr(self, key) is not None:
                message = f"config.{key} is what a worker writes before it runs the flow"
                yield Refusal(key=key, message=message, fix="leave it out, and name the flow")


FLOW_CALL = NodeType(
    type=FLOW_CALL_TYPE,
    category="control",
    description="Runs another flow of the app, in this run or as a run of its own, and gives its result.",
    inputs=(Port(name="payload", description="what the flow gets; without it, an object of all other ports"),),
    outputs=(Port(name="output", description="the result; each key of an object is a port, too"),),
    open_inputs=True,
    open_outputs=True,
    config=CallConfig,
    example={"flow": "charge-card", "mode": "run"},
    repeatable=False,
)
