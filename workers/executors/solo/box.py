"""A box of its own for each node that runs alone, used once: engine, code and commands are in there."""

from __future__ import annotations

from typing import cast

from schemas.json import JSONObject
from schemas.outcome import ErrorKind, Failed, Outcome, RunError
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.overdue import in_time
from workers.executors.boxed.supply import BoxSupply, Kind
from workers.executors.boxed.terms import Terms
from workers.executors.boxed.verdict import BoxDied, verdict, with_hindsight

#: Boxes with an engine that wait for a node of their own.
READY = 1


class BoxPerNode:
    """Executes one-node runs (`one_node.py`), with the memory and the processors that each asks for."""

    def __init__(self, supply: BoxSupply, terms: Terms, *, cpus: float | None) -> None:
        """`cpus` is for those that ask for none."""
        self._supply = supply
        self._terms = terms
        self._cpus = cpus

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        asked = order.backend_config
        memory_mb = cast(int, asked.get("memory_mb", self._terms.memory_mb))
        cpus = cast("float | None", asked.get("cpus", self._cpus))
        usual = Kind.for_run(order)
        kind = Kind(egress=usual.egress, with_code=usual.with_code, memory_mb=memory_mb, cpus=cpus)
        box = await self._supply.take(kind)
        return worded(await self._in(box, order, events, memory_mb), memory_mb)

    async def aclose(self) -> None:
        await self._supply.aclose()

    async def _in(self, box: EngineBox, order: RunOrder, events: EventSink, memory_mb: int) -> Outcome:
        try:
            outcome = await in_time(order, box.run(order, events, self._terms.of(order)))
        except BoxDied as died:
            outcome = verdict(died.ending, memory_mb)
        finally:
            ending = await box.aclose()
        return with_hindsight(outcome, ending, memory_mb)


def worded(outcome: Outcome, memory_mb: int) -> Outcome:
    """Say of which sandbox's memory an error tells, and where more of it is asked for."""
    if not isinstance(outcome, Failed) or (outcome.error.details or {}).get("raise_with") != "FLO_BOX_MEMORY_MB":
        return outcome
    message = (
        f"the node's own sandbox used more memory than its limit of {memory_mb:,} MB, engine and code together; use "
        "less, or raise resources.memory_mb"
    )
    details: JSONObject = {"limit": memory_mb, "raise_with": "resources.memory_mb"}
    return Failed(error=RunError(kind=ErrorKind.MEMORY_EXCEEDED, message=message, details=details))
