"""Boxes with an engine in them, made ahead of the runs that they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from schemas.errors import FloError
from workers.executors.base import RunOrder
from workers.executors.boxed.engine_box import EngineBox
from workers.sandboxes.box.base import BoxLimits
from workers.sandboxes.box.egress import Egress

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is wanted of a box."""

    egress: Egress
    #: Its place for code is started ahead, too.
    with_code: bool
    #: What it may use, if that is other than usual.
    memory_mb: int | None = None
    cpus: float | None = None

    @classmethod
    def for_run(cls, order: RunOrder) -> Kind:
        with_code = any(node.node_type.startswith(("code.", "hub.")) for node in order.document.nodes)
        return cls(egress=order.egress, with_code=with_code)

    def limits(self, usual: BoxLimits) -> BoxLimits:
        """Give what a box of this kind may use."""
        return replace(usual, memory_mb=self.memory_mb or usual.memory_mb, cpus=self.cpus)

    def fits(self, wanted: Kind) -> bool:
        """Tell whether a box of this kind will do; one without its place for code started still does."""
        return replace(self, with_code=wanted.with_code) == wanted


MakeBox = Callable[[Kind], Awaitable[EngineBox]]


class BoxSupply:
    """Keeps some boxes ready, of the kind that was asked for last. A box goes to one taker, and never comes back."""

    def __init__(self, make: MakeBox, *, ready: int) -> None:
        self._make = make
        self._wanted = ready
        self._ready: list[tuple[Kind, EngineBox]] = []
        self._taken: set[EngineBox] = set()
        self._refilling: asyncio.Task[None] | None = None
        self._closing = False

    async def take(self, kind: Kind) -> EngineBox:
        """Give a box that was never used. Raises Unavailable when none can be made."""
        box = self._ready_one(kind) or await self._make(kind)
        self._let_go()
        self._taken.add(box)
        self.refill(kind)
        return box

    def refill(self, kind: Kind) -> None:
        """Have boxes made for the next who ask for this kind."""
        if self._refilling is None and not self._closing:
            self._refilling = asyncio.create_task(self._refill(kind), name="ready boxes")

    async def aclose(self) -> None:
        """Kill every box that was ever given, and those that wait; return when they are confirmed dead."""
        self._closing = True
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.gather(self._refilling, return_exceptions=True)
        boxes = [*self._taken, *(box for _, box in self._ready)]
        self._ready.clear()
        await asyncio.gather(*(box.aclose() for box in boxes))

    def _ready_one(self, kind: Kind) -> EngineBox | None:
        """Find a box that fits, at best one whose place for code is as it is wanted."""
        self._let_go()
        fitting = [one for one in self._ready if one[0].fits(kind)]
        best = max(fitting, key=lambda one: one[0].with_code == kind.with_code, default=None)
        if best is None:
            return None
        self._ready.remove(best)
        return best[1]

    def _let_go(self) -> None:
        """Kill what is of no more use, and forget it when nothing of it is left."""
        self._taken |= {box for _, box in self._ready if box.is_dead}
        self._ready = [(made, box) for made, box in self._ready if not box.is_dead]
        for box in [box for box in self._taken if box.is_dead]:
            box.kill()
            if box.is_buried:
                self._taken.remove(box)

    async def _refill(self, kind: Kind) -> None:
        try:
            for odd in [one for one in self._ready if one[0] != kind]:
                self._ready.remove(odd)
                await odd[1].aclose()
            while len(self._ready) < self._wanted and not self._closing:
                self._ready.append((kind, await self._make(kind)))
        except FloError as trouble:  # the next who asks meets the same, and is told
            log.warning("box.not_ready", reason=str(trouble))
        finally:
            self._refilling = None
