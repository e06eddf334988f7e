"""A node that runs alone, as the engine sees it: its work is to have it done elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.json import JSONValue
from schemas.outcome import ErrorKind
from schemas.run import Happening
from workers.nodes.node import NodeCall, node_error


class Alone:
    """Stands for a node of any type. What is around a try (retries, cache, guards, rules) stays with the engine."""

    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        solo, given = call.tools.solo, call.solo
        if solo is None or given is None:
            raise node_error(
                ErrorKind.FORBIDDEN,
                "nothing here gives a node a sandbox of its own; run the flow on a worker, or with `flo run`",
            )
        return await solo.run(given.order, _Words(call))


class _Words:
    """What the node says, as words of its place in the run."""

    def __init__(self, call: NodeCall[Any]) -> None:
        self._call = call

    def emit(self, happening: Happening) -> None:
        self._call.emit(happening.type, happening.data)

    async def flush(self) -> None:
        assert self._call.solo is not None
        await self._call.solo.flush()
