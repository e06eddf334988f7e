"""A node that runs alone for an engine in a box: what it says goes through that engine, and so into its run."""

from __future__ import annotations

import asyncio
from collections import deque

from schemas.json import JSONValue
from schemas.run import Happening
from workers.engine.solo import Solo, SoloOrder
from workers.nodes.node import NodeError
from workers.runner.channel import Channel


class ToldNode:
    """The event sink of the node."""

    def __init__(self, channel: Channel, asked: int) -> None:
        self._channel = channel
        self._asked = asked
        self._waiting: deque[asyncio.Future[None]] = deque()

    def emit(self, happening: Happening) -> None:
        self._channel.say({"do": "told", "ask": self._asked, "type": happening.type.value, "data": happening.data})

    async def flush(self) -> None:
        """Wait until the engine says that all it was told so far has come back, and is durable."""
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(saved)
        self._channel.say({"do": "told", "ask": self._asked, "type": None})
        await saved

    async def saved(self) -> JSONValue:
        """Let the one go on that has waited longest. Raises LookupError when nobody waits."""
        saved = self._waiting.popleft()
        if not saved.done():
            saved.set_result(None)
        return None


async def run_alone(solo: Solo, order: SoloOrder, told: ToldNode) -> JSONValue:
    """Run the node; what goes wrong in it is its answer."""
    try:
        return {"outputs": dict(await solo.run(order, told))}
    except NodeError as failure:
        return {"error": failure.error.model_dump(mode="json")}
