"""The port for nodes that run alone, each in a sandbox of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from schemas.flow import Node, NodePlace
from schemas.json import JSONObject, JSONValue
from workers.engine.sink import EventSink
from workers.sandboxes.box.egress import Egress


@dataclass(frozen=True, slots=True, kw_only=True)
class SoloOrder:
    """One try at one node, with all that may be known of it where it runs."""

    run_id: str
    app: str
    #: Of the run, not of the node.
    run_attempt: int
    #: As its flow has it.
    node: Node
    place: NodePlace
    #: The number of this try.
    attempt: int
    #: The run's, of a node that nothing feeds; such a node finds its inputs in there by itself.
    payload: JSONValue = None
    #: What its connections bring, and its config; None of a node that nothing feeds.
    brought: JSONObject | None = None
    #: The parts of its work that earlier attempts at the run have done.
    kept: Mapping[int, JSONValue] = field(default_factory=dict)
    egress: Egress


def words_of(order: SoloOrder) -> JSONObject:
    """Say what this try is given, for those who know the node."""
    kept: list[JSONValue] = [[part, value] for part, value in order.kept.items()]
    return {"attempt": order.attempt, "payload": order.payload, "brought": order.brought, "kept": kept}


class Solo(Protocol):
    """Runs nodes alone."""

    async def run(self, order: SoloOrder, events: EventSink) -> Mapping[str, JSONValue]:
        """Give what the node gives; raise NodeError when it can't. Cancelled: kill it, confirm that it is dead.

        `events` takes what the node says while it runs (log, progress, data), and nothing of its beginning and its end.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SoloTry:
    """What the engine gives a node that is to run alone."""

    order: SoloOrder
    #: Returns once everything that the run has said is durable.
    flush: Callable[[], Awaitable[None]]
