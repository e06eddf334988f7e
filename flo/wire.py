"""The shapes of what the API and the runner say: plain dictionaries, so that `--json` prints them as they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypeAlias, TypedDict

#: A user's own JSON; covariant, so that a `dict[str, str]` is one too.
JSONValue: TypeAlias = bool | int | float | str | Sequence["JSONValue"] | Mapping[str, "JSONValue"] | None

#: The states in which a run is not over yet.
LIVE = frozenset({"queued", "running", "waiting"})


class RunError(TypedDict):
    kind: str
    message: str
    node_id: NotRequired[str | None]
    details: NotRequired[dict[str, JSONValue] | None]


class NodeRun(TypedDict):
    """One node of a run; times are ISO 8601."""

    id: str
    node_type: str
    status: str
    attempts: int
    started_at: str | None
    finished_at: str | None
    outputs: JSONValue
    error: RunError | None


class WaitOf(TypedDict):
    """What one node of a waiting run waits for."""

    node_id: str
    kind: str
    until: str | None
    url: str | None
    #: Of a child: the run whose end is awaited.
    run_id: NotRequired[str]


class Run(TypedDict):
    """One execution of a flow version; times are ISO 8601."""

    run_id: str
    app: str
    flow: str
    version: int
    event: str | None
    lane: str
    status: str
    attempt: int
    executor: str | None
    payload: JSONValue
    result: JSONValue
    error: RunError | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    nodes: list[NodeRun]
    #: Only of a run that another one has started; `node` only if it is a single node of its flow, in a pod.
    parent_run: NotRequired[str]
    node: NotRequired[str]
    #: Only while it is queued and a limit of its app holds it back.
    waiting_for: NotRequired[str]
    #: Only while it is waiting: what for, and where to answer.
    waits: NotRequired[list[WaitOf]]


class Accepted(TypedDict):
    """A run that was queued; `poll_token` lets whoever has it read this run alone."""

    run_id: str
    status: str
    poll_token: str
    backend: str


class Answer(TypedDict):
    """How a run ended, to whoever waited for it."""

    run_id: str
    status: str
    result: JSONValue
    error: RunError | None


class RunEvent(TypedDict):
    """One numbered line of a run's history; which of the optional keys are there depends on `type`."""

    seq: int
    run_id: str
    type: str
    time: str
    node_id: NotRequired[str]
    node_type: NotRequired[str]
    attempt: NotRequired[int]
    duration_ms: NotRequired[float]
    delay_ms: NotRequired[float]
    outputs: NotRequired[JSONValue]
    error: NotRequired[RunError | None]
    level: NotRequired[str]
    message: NotRequired[str]
    percent: NotRequired[float]
    port: NotRequired[str]
    value: NotRequired[JSONValue]
    reason: NotRequired[str]
    until: NotRequired[str | None]
    status: NotRequired[str]
    result: NotRequired[JSONValue]
    lane: NotRequired[str]
