"""The port that every node type implements, and what a node may use while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

import httpx

from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import NodeConfig
from schemas.outcome import ErrorKind, Outcome, RunError, Wait, WaitKind
from schemas.run import EventType
from workers.engine.solo import Solo, SoloTry
from workers.preparation.preparer import NoPreparer, Preparer
from workers.sandboxes.base import CodeSandbox
from workers.sandboxes.box.egress import PUBLIC_EGRESS, Egress
from workers.sandboxes.commands import CommandSandbox, NoBox
from workers.sandboxes.containers import Containers, NoContainers

C = TypeVar("C", bound=NodeConfig)

#: Inline requests on their way at once, where nobody says how many.
DEFAULT_HTTP_PLACES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTools:
    """What the nodes of one run may use. The code sandbox and the HTTP client are shared by all runs of a worker."""

    code: CodeSandbox
    #: Made by `workers.nodes.guarded.open_client`, which is what keeps private addresses out of reach.
    http: httpx.AsyncClient
    app: str
    run_id: str
    attempt: int
    #: Longest time-out of an `http.request` node that runs inline.
    inline_http_cap: timedelta = timedelta(seconds=300)
    #: Held by each `http.request` node that runs inline; shared by all runs of a worker, as `http` is.
    http_places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DEFAULT_HTTP_PLACES))
    #: Shared by all runs of a worker, as `code` is.
    preparer: Preparer = field(default_factory=NoPreparer)
    #: Where commands and Python run; shared by all runs of a worker, as `code` is.
    box: CommandSandbox = field(default_factory=NoBox)
    #: Where commands run that are to have a container.
    containers: Containers = field(default_factory=NoContainers)
    #: By node: what a command that failed left in /tmp, which its next try finds there again.
    left_in_tmp: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    #: Where people and other machines reach this server's API.
    public_url: str = "http://127.0.0.1:8080"
    #: Does the work of operators' own nodes, where the engine is in a box and they are not.
    elsewhere: Elsewhere | None = None
    #: Where the app's flows may connect to, besides what holds for all.
    egress: Egress = PUBLIC_EGRESS
    #: Runs nodes that are to be alone; None where the engine itself is alone with one.
    solo: Solo | None = None


class Elsewhere(Protocol):
    """Runs a node in another process than the engine's."""

    async def run_node(self, node_type: str, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        """As `Node.run`."""
        ...


class Inner(Protocol):
    """What a node may use whose config holds whole flows."""

    @property
    def kept(self) -> Mapping[int, JSONValue]:
        """Give the parts of its work that earlier attempts at the run have done."""
        ...

    async def run(self, place: str, payload: JSONValue, *, label: str) -> Outcome:
        """Run the flow at this place of the config; `label` marks what it logs. Cancel it by cancelling the call."""
        ...

    async def keep(self, part: int, value: JSONValue) -> None:
        """Put one part of the work on record, if doing it again would have an effect outside."""
        ...


class Waits(Protocol):
    """What a node may use that waits for something outside the run. To wait, it raises Park."""

    #: What the node noted when it began to wait, in an earlier attempt; None when it has not begun.
    @property
    def begun(self) -> JSONObject | None: ...

    def begin(self, note: JSONObject, *, port: str, value: JSONValue, opens: tuple[str, WaitKind] | None) -> None:
        """Note how it waits, for later attempts; show a value; open a waitpoint, with this event."""
        ...

    def has_opened(self, waitpoint: str) -> bool:
        """Tell whether a node of this run has opened the waitpoint."""
        ...

    def answer(self, waitpoint: str) -> JSONObject | None:
        """Give what came to a waitpoint, if anything has."""
        ...

    def is_over(self, until: datetime | None) -> bool:
        """Tell whether the run was woken because this time had come. Clocks of workers don't count."""
        ...

    def child(self) -> str:
        """Name the waitpoint of the run that this node starts: the same in every attempt."""
        ...


class Park(Exception):
    """The node can only go on once something has happened outside the run."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.kind)
        self.wait = wait


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCall(Generic[C]):
    """One try at one node."""

    node_id: str
    config: C
    #: Checked against the node type: required ports are there, and have their type.
    inputs: Mapping[str, JSONValue]
    attempt: int
    tools: NodeTools
    emit: Callable[[EventType, JSONObject], None]
    #: Only for node types whose config has `inner_flows`.
    inner: Inner | None = None
    #: None where a run can't be parked: inside another node, and where no server keeps it.
    waits: Waits | None = None
    #: Only for a node that is to run alone.
    solo: SoloTry | None = None

    def log(self, level: str, message: str) -> None:
        """Add a line to the run's log; level is debug, info, warning or error."""
        self.emit(EventType.LOG, {"level": level, "message": message})

    def progress(self, percent: float, message: str = "") -> None:
        self.emit(EventType.PROGRESS, {"percent": percent, "message": message})

    def data(self, port: str, value: JSONValue) -> None:
        """Show a value before the node is done."""
        self.emit(EventType.DATA, {"port": port, "value": value})


class Node(Protocol[C]):
    """A node type's work. One object serves all runs, so it keeps nothing between calls."""

    async def run(self, call: NodeCall[C]) -> Mapping[str, JSONValue]:
        """Do the work and return the value of each output port; raise NodeError when it can't be done."""
        ...


class NodeError(Exception):
    """A node could not do its work."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.message)
        self.error = error


def node_error(kind: ErrorKind, message: str, **details: JSONValue) -> NodeError:
    """Make a NodeError; the engine adds which node it was."""
    return NodeError(RunError(kind=kind, message=message, details=details or None))


def too_long(limit: timedelta, *, raise_with: str) -> NodeError:
    """Make the error of a node that ran into its time limit."""
    return node_error(
        ErrorKind.TIMED_OUT,
        f"took longer than its limit of {limit.total_seconds():g} s; raise {raise_with} if it needs more",
        limit_ms=round(limit.total_seconds() * 1000),
        raise_with=raise_with,
    )
