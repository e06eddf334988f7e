"""A run and its events, as every door shows them (API, SDK, command line, feed)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, RunError


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    #: Parked (long delay, waitpoint): holds no worker.
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    MEMORY_EXCEEDED = "memory_exceeded"
    OUTPUT_EXCEEDED = "output_exceeded"
    #: Given up after `max_attempts` lost attempts; can be redriven.
    DEAD = "dead"

    @property
    def terminal(self) -> bool:
        return self not in _LIVE


_LIVE = frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING})

_STATUS_OF_ERROR = {
    ErrorKind.TIMED_OUT: RunStatus.TIMED_OUT,
    ErrorKind.MEMORY_EXCEEDED: RunStatus.MEMORY_EXCEEDED,
    ErrorKind.OUTPUT_EXCEEDED: RunStatus.OUTPUT_EXCEEDED,
    ErrorKind.CANCELLED: RunStatus.CANCELLED,
}


def status_of(error: RunError) -> RunStatus:
    """Tell the final status that an error gives its run."""
    return _STATUS_OF_ERROR.get(error.kind, RunStatus.FAILED)


class Lane(StrEnum):
    """A queue; a worker group suffixes it (`flow.gpu`)."""

    RECURRING = "recurring"
    WEBHOOK = "webhook"
    FLOW = "flow"


class EventType(StrEnum):
    RUN_QUEUED = "run_queued"
    RUN_STARTED = "run_started"
    NODE_STARTED = "node_started"
    NODE_COMPLETED = "node_completed"
    NODE_FAILED = "node_failed"
    NODE_RETRYING = "node_retrying"
    LOG = "log"
    PROGRESS = "progress"
    DATA = "data"
    RUN_WAITING = "run_waiting"
    RUN_RESUMED = "run_resumed"
    RUN_COMPLETED = "run_completed"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened in a run, before the feed has given it a number.

    `data` by type: run_queued {lane}; run_started {attempt, worker, executor}; node_started {node_type, attempt};
    node_completed {outputs, attempt, duration_ms}; node_failed {error, attempt}; node_retrying {error, attempt,
    delay_ms}; log {level, message}; progress {percent, message}; data {port, value};
    run_waiting {reason, until, waits}; run_resumed {reason, until?, waitpoint?, answer?}; run_completed
    {status, result, error}.
    """

    type: EventType
    data: JSONObject = field(default_factory=dict)
    node_id: str | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One numbered line of a run's history; `seq` starts at 1 and has no gaps."""

    run_id: str
    seq: int
    happening: Happening

    def as_json(self) -> JSONObject:
        """Write the flat wire form: `{seq, run_id, type, time, node_id?, ...data}`."""
        said = self.happening
        flat: JSONObject = {
            "seq": self.seq,
            "run_id": self.run_id,
            "type": str(said.type),
            "time": said.time.isoformat(),
        }
        if said.node_id is not None:
            flat["node_id"] = said.node_id
        return {**said.data, **flat}


class NodeView(BaseModel):
    """One node of a run."""

    model_config = ConfigDict(extra="forbid")

    id: str
    node_type: str
    #: pending, running, retrying, waiting, succeeded, failed or skipped.
    status: str
    attempts: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outputs: JSONValue = None
    error: RunError | None = None


class RunView(BaseModel):
    """A run, wherever it is shown."""

    model_config = ConfigDict(extra="forbid")

    run_id: str
    app: str
    flow: str
    version: int
    event: str | None
    lane: str
    status: RunStatus
    attempt: int
    executor: str | None
    payload: JSONValue
    result: JSONValue
    error: RunError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    nodes: list[NodeView]
