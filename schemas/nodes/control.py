"""Node types that steer a flow: pauses and answers."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from schemas.flow import Whole
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port
from schemas.nodes.wait import LONGEST_WAIT_MS

#: A longer delay parks the run, which then holds no worker.
LONGEST_SLEEP_MS = 60_000


class DelayConfig(NodeConfig):
    delay_ms: Whole = Field(default=1000, ge=0, le=LONGEST_WAIT_MS, description="pause in milliseconds")
    data: JSONValue = Field(default=None, description="passed on when no connection brings any")

    def engine_limit(self) -> timedelta | None:
        """Leave the limit to the node: it counts while no worker has the run."""
        return None

    def parks(self) -> bool:
        return self.delay_ms > LONGEST_SLEEP_MS


class RespondConfig(NodeConfig):
    value: JSONValue = Field(default=None, description="the answer, when no connection brings one")
    status: Whole = Field(default=200, ge=100, le=599, description="HTTP status, when a webhook waits for the answer")
    headers: dict[str, str] = Field(default={}, description="HTTP headers, when a webhook waits for the answer")


TIME_DELAY = NodeType(
    type="time.delay",
    category="control",
    description="Waits, then passes its data on; beyond a minute the run holds no worker meanwhile.",
    inputs=(Port(name="data", description="any value"),),
    outputs=(Port(name="data", description="the same value"),),
    config=DelayConfig,
    example={"delay_ms": 500},
)

RESPOND = NodeType(
    type="respond",
    category="control",
    description="Gives the run its result.",
    inputs=(
        Port(name="value", description="the answer; without it the payload (a root) or an object of all other ports"),
        Port(name="status", type="integer", description="HTTP status"),
        Port(name="headers", type="object", description="HTTP headers"),
    ),
    outputs=(
        Port(name="value", description="the answer"),
        Port(name="status", type="integer", description="HTTP status"),
        Port(name="headers", type="object", description="HTTP headers"),
    ),
    open_inputs=True,
    config=RespondConfig,
    example={"status": 201},
)
