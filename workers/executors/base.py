"""The port between the dispatcher and whatever executes a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.flow import FlowDocument
from schemas.json import JSONObject, JSONValue
from schemas.outcome import Away, Outcome
from schemas.run import Happening
from workers.engine.sink import EventSink
from workers.sandboxes.box.egress import PUBLIC_EGRESS, Egress


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """One attempt at a run, with all that an executor may know of it."""

    run_id: str
    app: str
    flow: str
    version: int
    attempt: int
    document: FlowDocument
    payload: JSONValue
    backend_config: JSONObject
    #: What earlier attempts have done: the checkpoint.
    past: Sequence[Happening] = ()
    #: Where it may connect to.
    egress: Egress = PUBLIC_EGRESS
    #: Somebody keeps it while it waits without a worker; else it fails where it would have to.
    may_park: bool = True
    #: What started it, if an event did.
    event: str | None = None
    #: The node that is all of it, if it is one node's.
    node: str | None = None


class Executor(Protocol):
    """Executes runs, many at a time."""

    async def run(self, order: RunOrder, events: EventSink) -> Outcome | Away:
        """Execute one attempt to its end. When cancelled: kill it, confirm that it is dead, then raise.

        One that outlives its worker is lent first (`loan.py`), and may then be let go of: `Away`, also when cancelled.
        """
        ...

    async def aclose(self) -> None:
        """Kill and confirm dead whatever is left."""
        ...


class LocalExecutor(Executor, Protocol):
    """One whose attempts end with it: it never lets go of any."""

    async def run(self, order: RunOrder, events: EventSink) -> Outcome: ...
