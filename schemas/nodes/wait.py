"""Node types that wait for someone outside: the run is parked and holds no worker meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from schemas.flow import Whole
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port

#: Longest wait: a year, in milliseconds. A run that is parked costs a row.
LONGEST_WAIT_MS = 365 * 24 * 3600 * 1000


class WaitConfig(NodeConfig):
    always_parks: ClassVar[bool] = True

    timeout_ms: Whole | None = Field(
        default=None, ge=1, le=LONGEST_WAIT_MS, description="longest wait in milliseconds; unless given, for ever"
    )
    on_timeout: Literal["fail", "continue"] = Field(
        default="fail", description="continue: the node succeeds with timed_out = true"
    )

    def engine_limit(self) -> timedelta | None:
        """Leave the limit to the node: it counts while no worker has the run."""
        return None


class ApprovalConfig(WaitConfig):
    message: str = Field(default="", max_length=10_000, description="what the person who decides is shown")


class UrlConfig(NodeConfig):
    #: What waits at its waitpoint does, and looks for it in the same engine.
    always_parks: ClassVar[bool] = True

    kind: Literal["webhook", "approval"] = Field(default="webhook", description="what will wait at it")
    data: JSONValue = Field(default=None, description="passed on when no connection brings any")


_TOKEN = Port(name="token", type="string", description="from a wait.url that went before; else the node makes its own")
_TIMED_OUT = Port(name="timed_out", type="boolean", description="nobody came in time")

WAIT_URL = NodeType(
    type="wait.url",
    category="control",
    description="Opens a waitpoint ahead, so that someone can be told of it before a wait node parks the run.",
    inputs=(Port(name="data", description="any value"),),
    outputs=(
        Port(name="url", type="string", description="where to send the webhook, or the decision"),
        Port(name="token", type="string", description="for the wait node's input of that name"),
        Port(name="data", description="the value that came in"),
    ),
    open_inputs=True,
    config=UrlConfig,
    example={"kind": "approval"},
    repeatable=False,
)

WAIT_WEBHOOK = NodeType(
    type="wait.webhook",
    category="control",
    description="Parks the run until a request comes to its waitpoint, and gives what that request brought.",
    inputs=(_TOKEN,),
    outputs=(
        Port(name="body", description="the body: JSON as a value, anything else as text"),
        Port(name="headers", type="object", description="without those that carry secrets"),
        Port(name="query", type="object", description="the query string"),
        Port(name="method", type="string", description="the method"),
        _TIMED_OUT,
    ),
    open_inputs=True,
    config=WaitConfig,
    example={"timeout_ms": 86_400_000, "on_timeout": "continue"},
    repeatable=False,
)

WAIT_APPROVAL = NodeType(
    type="wait.approval",
    category="control",
    description="Parks the run until a person has said yes or no.",
    inputs=(_TOKEN, Port(name="message", type="string", description="what the person who decides is shown")),
    outputs=(
        Port(name="approved", type="boolean", description="yes or no; no when nobody came in time"),
        Port(name="by", type="string", description="who decided, as they say"),
        Port(name="comment", type="string", description="what they said"),
        _TIMED_OUT,
    ),
    open_inputs=True,
    config=ApprovalConfig,
    example={"message": "Ship the release?", "timeout_ms": 86_400_000},
    repeatable=False,
)
