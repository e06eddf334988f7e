"""How an attempt at a run can end: a closed set, matched with `assert_never`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

from schemas.json import JSONObject, JSONValue


class ErrorKind(StrEnum):
    """Whose fault it was and which limit was hit; the status of the run follows from it."""

    #: The flow's own code or data failed.
    USER = "user_error"
    #: The flow's own code does not parse; the message names line and column.
    SYNTAX = "syntax_error"
    #: A node was given inputs or config that it can't use.
    INVALID_INPUT = "invalid_input"
    #: Another machine answered wrongly or not at all.
    UPSTREAM = "upstream_error"
    #: An address, package or action that the operator does not allow.
    FORBIDDEN = "forbidden"
    TIMED_OUT = "timed_out"
    MEMORY_EXCEEDED = "memory_exceeded"
    OUTPUT_EXCEEDED = "output_exceeded"
    #: Something ended the flow's own process, and it was not Flo.
    KILLED = "killed"
    CANCELLED = "cancelled"
    #: A sandbox or worker died under a run through no fault of its own: worth another attempt.
    LOST = "lost"
    #: Flo's own fault.
    INTERNAL = "internal_error"


class RunError(BaseModel):
    """What went wrong, for a person: one sentence that names the fix, and the details behind it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ErrorKind
    message: str
    node_id: str | None = None
    #: e.g. {"line", "column", "stack", "limit", "raise_with"}
    details: JSONObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The flow ran to its end."""

    result: JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The flow is over and did not succeed; trying again would do the same."""

    error: RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Someone asked for the run to stop, and it has."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The attempt was lost through no fault of the flow: queue the run again after a pause."""

    after: timedelta
    reason: str


class WaitKind(StrEnum):
    """What a run that holds no worker waits for."""

    DELAY = "delay"
    #: Any request to the waitpoint.
    WEBHOOK = "webhook"
    #: A person's yes or no.
    APPROVAL = "approval"
    #: The end of a run that this one has started.
    CHILD = "child"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCall:
    """A run of another flow of the same app, to be accepted when its caller parks."""

    flow: str
    #: None is the newest.
    version: int | None = None
    payload: JSONValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildNode:
    """The node that waits itself, alone in a pod of its own: a run of its caller's flow that has no other node."""

    #: What this try at it is given, in the words of `workers.engine.solo.words_of`.
    given: JSONObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What one node of a parked run waits for."""

    node_id: str
    kind: WaitKind
    #: When it goes on in any case; None waits for as long as it takes.
    until: datetime | None = None
    #: The waitpoint that ends the wait; `schemas.waitpoint.waitpoint_of` makes it of the token. None: time alone does.
    waitpoint: str | None = None
    #: Where a webhook or an answer is sent to, for those who may see the run.
    url: str | None = None
    #: What a person who decides is shown.
    message: str | None = None
    child: ChildCall | ChildNode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """All that could run has run, and the rest waits for something outside: keep the run without a worker."""

    waits: tuple[Wait, ...]

    @property
    def until(self) -> datetime | None:
        """When the first of the waits is over in any case."""
        return min((wait.until for wait in self.waits if wait.until is not None), default=None)

    @property
    def reason(self) -> str:
        """Say in words what the run waits for."""
        return ", ".join(f'{wait.kind} at "{wait.node_id}"' for wait in self.waits)


Outcome: TypeAlias = Succeeded | Failed | Cancelled | Retry | Parked


@dataclass(frozen=True, slots=True)
class Away:
    """No end: the attempt goes on elsewhere, under a loan of its own, and the worker has let go of it."""
