"""A node that runs alone, as the engine sees it: its work is to have it done elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.json import JSONValue
from schemas.outcome import ErrorKind
from schemas.run import Happening
from workers.engine.pod import given_in_pod, start_in_pod
from workers.nodes.node import NodeCall, node_error


class Alone:
    """Stands for a node of any type. What is around a try (retries, cache, guards, rules) stays with the engine.

    A pod is a run for whose end this one parks. Where that can't be, as inside another node, it gets a sandbox instead.
    """

    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        solo, given = call.tools.solo, call.solo
        if given is not None and call.waits is not None:
            # Wherever it would run by now: when the run was parked, it had a pod.
            if (ended := call.waits.answer(call.waits.child())) is not None:
                return given_in_pod(given.order, ended)
            if given.order.place == "pod":
                raise start_in_pod(given.order, call.waits)
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
