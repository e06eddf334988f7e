"""Has the worker run a node alone: a box never opens another beside itself. The words, and both ends' view of them.

A node that runs alone speaks through the engine that asked: the worker passes its words on ({"do": "told"}), and they
come back as the words of a run in this box, in their place among the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast, get_args

from schemas.flow import Node, NodePlace
from schemas.json import JSONObject, JSONValue
from schemas.outcome import RunError
from schemas.run import EventType, Happening
from workers.engine.sink import EventSink
from workers.engine.solo import SoloOrder, words_of
from workers.executors.base import RunOrder
from workers.nodes.node import NodeError
from workers.runner.asks import Asks
from workers.runner.wire import Said


def solo_to(order: SoloOrder) -> JSONObject:
    return {"node": order.node.model_dump(mode="json"), "place": order.place, **words_of(order)}


def solo_from(said: Said, run: RunOrder) -> SoloOrder:
    """Read an order; whose it is and what it may reach is not for the asker to say. Raises ValueError or TypeError."""
    if said["place"] not in get_args(NodePlace) or not isinstance(said["brought"], dict | None):
        raise ValueError("not an order for one node")
    return SoloOrder(
        run_id=run.run_id,
        app=run.app,
        run_attempt=run.attempt,
        node=Node.model_validate(said["node"]),
        place=said["place"],
        attempt=int(said["attempt"]),
        payload=said["payload"],
        brought=said["brought"],
        kept={int(part): value for part, value in said["kept"]},
        egress=run.egress,
    )


class AskedSolo:
    """Asks the worker, and tells what the node says."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def run(self, order: SoloOrder, events: EventSink) -> Mapping[str, JSONValue]:
        async with asyncio.TaskGroup() as savings:

            def hear(message: Said) -> None:
                if message["type"] is None:
                    savings.create_task(self._save(events, message["ask"]))
                else:
                    events.emit(Happening(EventType(message["type"]), message["data"], order.node.id))

            answer: Any = await self._asks.ask(self._run, "solo", solo_to(order), hear)
        if "error" in answer:
            raise NodeError(RunError.model_validate(answer["error"]))
        return cast(Mapping[str, JSONValue], answer["outputs"])

    async def _save(self, events: EventSink, asked: int) -> None:
        """Tell the worker when all that it has passed on so far is durable."""
        await events.flush()
        await self._asks.ask(self._run, "solo_saved", {"ask": asked})
