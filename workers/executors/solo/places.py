"""The places of one worker for nodes that run alone: so many at once, and the others wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

from schemas.errors import Unavailable
from schemas.flow import Node
from schemas.json import JSONValue
from schemas.nodes.spec import SoloBounds
from schemas.outcome import ErrorKind
from schemas.run import EventType, Happening
from schemas.solo import beyond
from workers.engine.sink import EventSink
from workers.engine.solo import SoloOrder
from workers.executors.base import LocalExecutor
from workers.executors.solo.one_node import Listener, one_node_run
from workers.nodes.node import node_error

log = structlog.get_logger()


class Places:
    """Counts them. Whoever waits longest is next; nobody is sent away."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = asyncio.Semaphore(most)

    @asynccontextmanager
    async def one(self, events: EventSink) -> AsyncIterator[None]:
        """Hold a place; who has to wait for it says so in the run's log."""
        if self._free.locked():
            nodes = f"{self._most} nodes run" if self._most > 1 else "1 node runs"
            message = f"waits for a place: {nodes} alone on this worker now, and no more may (FLO_MAX_SOLO_NODES)"
            events.emit(Happening(EventType.LOG, {"level": "info", "message": message}))
        async with self._free:
            yield


class SoloRuns:
    """Runs each node by handing an executor a run that has no other node.

    A box, a container or a pod is one for whom `open_executor` opens what makes those.
    """

    def __init__(
        self, open_executor: Callable[[], Awaitable[LocalExecutor]], places: Places, *, bounds: SoloBounds
    ) -> None:
        self._open_executor = open_executor
        self._places = places
        self._bounds = bounds

    async def run(self, order: SoloOrder, events: EventSink) -> Mapping[str, JSONValue]:
        self._check(order.node)
        listener = Listener(order.node, events, self._bounds)
        async with self._places.one(events):
            executor = await self._opened(order)
            try:
                outcome = await executor.run(one_node_run(order, self._bounds), listener)
            except Unavailable as reason:  # now; sandboxes of this kind do work here
                raise node_error(ErrorKind.LOST, f"no sandbox for a node that runs alone: {reason}") from None
        return listener.given(outcome)

    async def _opened(self, order: SoloOrder) -> LocalExecutor:
        try:
            return await self._open_executor()
        except Unavailable as reason:
            log.error("solo.unavailable", app=order.app, run_id=order.run_id, reason=str(reason))
            raise node_error(ErrorKind.FORBIDDEN, f"no sandbox for a node that runs alone: {reason}") from None

    def _check(self, node: Node) -> None:
        """Hold a node to the bounds of this worker; they may have changed since its flow was pushed."""
        for refusal in beyond(node, self._bounds):
            raise node_error(ErrorKind.FORBIDDEN, f"{refusal.message}; {refusal.fix}")
