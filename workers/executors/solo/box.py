"""A box of its own for each node that runs alone, used once: engine, code and commands are in there."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

from schemas.outcome import Outcome
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.boxed.per_run import run_alone
from workers.executors.boxed.supply import BoxSupply, Kind
from workers.executors.boxed.terms import Terms

#: Boxes with an engine that wait for a node of their own.
READY = 1


class BoxPerNode:
    """Executes one-node runs (`one_node.py`), with the memory and the processors that each asks for."""

    def __init__(self, supply: BoxSupply, terms: Terms) -> None:
        self._supply = supply
        self._terms = terms

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        asked = order.backend_config
        memory_mb = cast(int, asked["memory_mb"])
        kind = replace(Kind.for_run(order), memory_mb=memory_mb, cpus=cast("float | None", asked.get("cpus")))
        take = partial(self._supply.take, kind)
        return await run_alone(order, events, take=take, terms=self._terms, memory_mb=memory_mb)

    async def aclose(self) -> None:
        await self._supply.aclose()
