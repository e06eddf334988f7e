"""What a worker holds while it executes a run, and how it lets go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.json import JSONObject, JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to execute one attempt. Every write names `attempt`; once another is claimed, none succeeds."""

    run_id: str
    attempt: int
    max_attempts: int
    app: str
    flow: str
    version: int
    event: str | None
    lane: str
    worker_group: str | None
    priority: int
    mode: str | None
    backend_config: JSONObject | None
    payload: JSONValue
    #: The number of the newest event before this attempt.
    last_seq: int
    created_at: datetime
    cancel_reason: str | None
    concurrency_key: str | None = None
    #: The only node of the flow that is to run, if the run is one node's.
    node: str | None = None


class LastChance(Exception):
    """The run's workers died on it, and this is its last attempt: it is to be made with nothing beside it.

    So a run that ends its workers takes no neighbour along to the dead letters, and is itself spared by its neighbours.
    """


class LostClaim(Exception):
    """Another attempt has the run, or it is over: whatever this one still does counts for nothing."""
