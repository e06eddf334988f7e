"""Sandboxes for nodes that run alone where there is no server, opened when the first such node comes to its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.json import JSONValue
from schemas.settings import ExecutionMode, Settings
from workers.engine.sink import EventSink
from workers.engine.solo import Solo, SoloOrder

if TYPE_CHECKING:
    from workers.executors.openings import Openings


class StandaloneSolo:
    """Gives a container where Docker has the runner image, else a box, else a process, and then warns of that."""

    def __init__(self, settings: Settings) -> None:
        # One run does not last long enough for what is made ahead to pay.
        self._settings = settings.model_copy(update={"docker_ready": 0})
        self._opening: asyncio.Task[Solo] | None = None
        self._openings: Openings | None = None

    async def run(self, order: SoloOrder, events: EventSink) -> Mapping[str, JSONValue]:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="open solo")
        return await (await asyncio.shield(self._opening)).run(order, events)

    async def aclose(self) -> None:
        """Kill and confirm dead whatever is left."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._openings is not None:
            await self._openings.aclose()

    async def _open(self) -> Solo:
        # Imported only here: what a worker is made of takes longer to load than most files take to run.
        from workers.executors.openings import Openings

        self._openings = Openings(self._settings, standalone=True)
        return self._openings.solo.for_mode(ExecutionMode.SANDBOX_CODE_ONLY)
