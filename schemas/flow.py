"""Flow documents in their canonical form: what a flow is once every mistake and every dialect is out of the way.

`schemas.validation.read_document` makes one from whatever a user sent.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from schemas.expression import check_expression
from schemas.json import JSONObject, to_bytes
from schemas.outcome import ErrorKind
from schemas.pod import Resources

#: Longest time that one flow may ask for: a week, in milliseconds.
MAX_EXECUTION_TIME_MS = 7 * 24 * 3600 * 1000


def _whole(value: Any) -> Any:
    """Take 5.0 for 5, as JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: A whole number; `5.0` is one, `"5"` and `true` are not.
Whole = Annotated[int, BeforeValidator(_whole), Field(strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
#: Where a node runs: among the others of its run, alone in a sandbox of its own, or alone in a pod of a cluster, where
#: there is one.
NodePlace = Literal["inline", "sandbox", "pod"]
TriggerRule = Literal["all_success", "all_failed", "all_done", "one_success", "one_failed", "none_failed"]
#: The rules by which a node may start although a node that feeds it has failed.
TAKES_FAILURES: frozenset[TriggerRule | None] = frozenset({"all_failed", "all_done", "one_failed"})

#: A text that `schemas.expression` can evaluate.
Expression = Annotated[str, Field(min_length=1), AfterValidator(check_expression)]


def _retried(value: Any) -> Any:
    if (type(value) is int and 100 <= value <= 599) or (isinstance(value, str) and value in _RETRIED):
        return value
    raise ValueError(f"must be an HTTP status (100 to 599) or one of {', '.join(_RETRIED)}")


_RETRIED = ("4xx", "5xx", *(str(kind) for kind in ErrorKind if kind is not ErrorKind.CANCELLED))
_RETRIED_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 100, "maximum": 599}, {"enum": list(_RETRIED)}]}
#: What an error may be recognised by: an HTTP status, all statuses of a class, or its kind.
ErrorMark = Annotated[int | str, BeforeValidator(_retried), WithJsonSchema(_RETRIED_SCHEMA)]
#: The output port that every node has once it has failed.
ERROR_PORT = "error"


class Part(BaseModel):
    """A part of a document: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RetryPolicy(Part):
    """When a node that failed is tried again: after `delay_ms`, then times `backoff_multiplier` each time."""

    #: Tries in all, the first one included.
    max_attempts: Whole = Field(default=3, ge=1, le=100)
    delay_ms: Whole = Field(default=1000, ge=0, le=86_400_000)
    backoff_multiplier: float = Field(default=2.0, ge=1, le=1000, strict=True)
    max_delay_ms: Whole | None = Field(default=None, ge=0, le=86_400_000)
    #: Share of the delay that chance may add to it: 0 adds nothing, 1 up to as much again.
    jitter: float = Field(default=0.0, ge=0, le=1, strict=True)
    retry_on_timeout: bool = Field(default=False, strict=True)
    #: If given, these errors are retried and no others.
    retry_on: tuple[ErrorMark, ...] | None = Field(default=None, min_length=1, max_length=100)


class CircuitBreaker(Part):
    """Stops calling a target that keeps failing. Shared by all runs of the app that name the same key."""

    #: The target; else the host that the node calls, or the node itself.
    key: Name | None = None
    #: Failures in a row that open the circuit.
    failure_threshold: Whole = Field(default=5, ge=1, le=10_000)
    #: How long an open circuit refuses every call.
    open_ms: Whole = Field(default=60_000, ge=1, le=86_400_000)
    #: Calls let through as a test after that; when they all succeed the circuit closes, when one fails it opens again.
    half_open_calls: Whole = Field(default=1, ge=1, le=1000)


class Bulkhead(Part):
    """Bounds how many nodes with the same key run at once, over all runs of the app on a worker."""

    key: Name
    max_concurrent: Whole = Field(ge=1, le=10_000)
    #: What a node does when there is no place: wait for one, or fail.
    when_full: Literal["wait", "fail"] = "wait"


class CachePolicy(Part):
    """Keeps what the node gave, for runs of the same app that ask the same: same type, same config, same inputs."""

    ttl_ms: Whole = Field(ge=1, le=30 * 86_400_000)
    #: An expression over the inputs: what of them counts. All of them unless given.
    key: Expression | None = None


class NodeResources(Part):
    """What a node may use that runs alone; what it does not say is as the operator has it."""

    #: The engine itself needs some of it, and a V8 host more.
    memory_mb: Whole | None = Field(
        default=None, ge=128, le=1_048_576, description="memory of its sandbox: engine, code and scratch space together"
    )
    cpus: float | None = Field(default=None, gt=0, le=1024, description="processors that it may use at once")
    timeout_ms: Whole | None = Field(
        default=None,
        ge=1,
        le=MAX_EXECUTION_TIME_MS,
        description="limit in milliseconds; the wait for a place is not in it",
    )


class Position(Part):
    """Where an editor draws the node."""

    x: float
    y: float


class Node(Part):
    """One step of a flow."""

    id: Name
    node_type: Name
    config: JSONObject = {}
    name: str | None = None
    position: Position | None = None
    #: When the node starts, by what became of those that feed it; `all_success` unless the flow continues on errors.
    trigger_rule: TriggerRule | None = None
    retry_policy: RetryPolicy | None = None
    circuit_breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | None = None
    cache: CachePolicy | None = None
    execution_mode: NodePlace | None = Field(
        default=None, description="sandbox: alone, in a sandbox of its own; pod: alone, in a pod of a cluster's"
    )
    resources: NodeResources | None = Field(default=None, description="of a node that runs alone")


class Connection(Part):
    """One output port wired to one input port."""

    from_node: str
    from_port: Name
    to_node: str
    to_port: Name


class RetryWorkflow(Part):
    """How often the whole flow may be tried, the first time included."""

    max_attempts: Whole = Field(ge=1, le=100)


class RetryWorkflowOnError(Part):
    RetryWorkflow: RetryWorkflow


#: parallel: all that is ready, side by side. sequential: one node at a time, in the document's order. conditional: one
#: at a time, and only along the output ports that the nodes fill, as if every node were a `flow.branch`.
Strategy = Literal["parallel", "sequential", "conditional"]
OnError = Literal["StopWorkflow", "ContinueOnError"] | RetryWorkflowOnError


class FlowSettings(Part):
    """What holds for the flow as a whole."""

    max_parallel_nodes: Whole = Field(default=10, ge=1, le=10_000)
    #: Limit on one attempt at the whole flow; an hour unless the document says otherwise.
    max_execution_time_ms: Whole = Field(default=3_600_000, ge=1, le=MAX_EXECUTION_TIME_MS)
    on_error: OnError = "StopWorkflow"
    strategy: Strategy = "parallel"
    #: What an attempt takes of a node, where it has one of its own: a Kubernetes Job.
    resources: Resources | None = None

    @field_validator("max_execution_time_ms", mode="before")
    @classmethod
    def _null_is_default(cls, value: Any) -> Any:
        return cls.model_fields["max_execution_time_ms"].default if value is None else value

    @field_validator("on_error", mode="before")
    @classmethod
    def _known_way(cls, value: Any) -> Any:
        if value in ("StopWorkflow", "ContinueOnError") or isinstance(value, RetryWorkflowOnError):
            return value
        match value:
            case {"RetryWorkflow": {"max_attempts": int() as attempts}} if 1 <= attempts <= 100 and len(value) == 1:
                return value
        raise ValueError('must be "StopWorkflow", "ContinueOnError" or {"RetryWorkflow": {"max_attempts": 1 to 100}}')

    @property
    def max_execution_time(self) -> timedelta:
        return timedelta(milliseconds=self.max_execution_time_ms)

    @property
    def most_at_once(self) -> int:
        """How many nodes may run at the same time."""
        return self.max_parallel_nodes if self.strategy == "parallel" else 1


class TriggerType(Part):
    type: Literal["Manual", "Cron", "Webhook", "Event"]
    expression: str | None = None
    path: str | None = None
    event_type: str | None = None


class Trigger(Part):
    """FlowEngine's way to say when a flow starts. Kept, never fired: in Flo an event does that."""

    id: str
    trigger_type: TriggerType
    enabled: bool = True


class FlowDocument(Part):
    """A flow: a graph of nodes, wired port to port."""

    #: Says that this is the canonical form; a document without it may be FlowEngine's typed form.
    schema_version: Literal[1] = 1
    id: str | None = None
    name: Name
    description: str | None = None
    nodes: tuple[Node, ...]
    connections: tuple[Connection, ...] = ()
    settings: FlowSettings = FlowSettings()
    triggers: tuple[Trigger, ...] = ()


def canonical_json(document: FlowDocument) -> str:
    """Write the one text that stands for this document: keys sorted, defaults spelled out, absent things left out."""
    return to_bytes(document.model_dump(mode="json", exclude_none=True), option=orjson.OPT_SORT_KEYS).decode()


def content_hash(document: FlowDocument) -> str:
    """Tell documents that mean the same from those that don't: sha256 in hex, whatever the order of keys.

    Defaults are left out, so that a hash outlives the fields that later versions of Flo add.
    """
    content = document.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(to_bytes(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
