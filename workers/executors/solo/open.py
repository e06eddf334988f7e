"""Which sandboxes nodes get that run alone, and how those are opened: when the first such node asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Literal, TypeAlias

import structlog

from schemas.errors import Unavailable
from schemas.flow import MAX_EXECUTION_TIME_MS
from schemas.settings import ExecutionMode, Settings, SoloWay
from schemas.solo import bounds_of
from workers.engine.solo import Solo
from workers.executors.base import LocalExecutor
from workers.executors.boxed.desk import Services
from workers.executors.boxed.making import make_engine_box
from workers.executors.boxed.supply import BoxSupply
from workers.executors.boxed.terms import Terms
from workers.executors.solo.box import READY, BoxPerNode
from workers.executors.solo.container import runner_image_is_there
from workers.executors.solo.places import Places, SoloRuns
from workers.executors.solo.process import open_processes
from workers.sandboxes.box.box import NamespaceBox

log = structlog.get_logger()

#: Where JavaScript runs: in an isolate, or in a Node of its own.
Platform: TypeAlias = Literal["v8", "node"]
_BY_WAY: Mapping[SoloWay, Sequence[SoloWay]] = {
    SoloWay.AUTO: (SoloWay.BOX, SoloWay.PROCESS),
    SoloWay.DOCKER: (SoloWay.DOCKER,),
    SoloWay.BOX: (SoloWay.BOX,),
    SoloWay.PROCESS: (SoloWay.PROCESS,),
}
#: The modes in which runs have no box either, so that a node in a process of its own has no less around it.
_WITHOUT_BOX = (ExecutionMode.UNSANDBOXED, ExecutionMode.SANDBOX_CODE_ONLY)
#: The mode of the engine in a box of a node's own.
_INSIDE = {"node": ExecutionMode.SANDBOX_PROCESS, "v8": ExecutionMode.SANDBOX_CODE_AND_PROCESS}
_NODE = (ExecutionMode.UNSANDBOXED, ExecutionMode.SANDBOX_PROCESS)
#: Alone, a request takes no place from others, and has no cap.
_NO_CAP = timedelta(milliseconds=MAX_EXECUTION_TIME_MS)


class SoloOpenings:
    """The sandboxes of one process for nodes that run alone; all of them count the same places."""

    def __init__(
        self,
        settings: Settings,
        *,
        boxes: Callable[[], Awaitable[NamespaceBox]],
        services: Callable[[Platform], Services],
        docker: Callable[[Services, Terms], LocalExecutor],
        standalone: bool = False,
    ) -> None:
        """`services` are for what is alone, which gets no other sandbox; `docker` makes what makes containers.

        Without a server around it (`standalone`) containers come before boxes, where they work.
        """
        self._settings = settings
        self._boxes = boxes
        self._services = services
        self._docker = docker
        self._places = Places(settings.max_solo_nodes)
        self._opened = AsyncExitStack()
        self._opening: dict[ExecutionMode, asyncio.Task[LocalExecutor]] = {}
        self._ways = _BY_WAY[settings.solo]
        if standalone and settings.solo is SoloWay.AUTO:
            self._ways = (SoloWay.DOCKER, *self._ways)

    def for_mode(self, mode: ExecutionMode) -> Solo:
        """Give what runs nodes alone of runs that are due this mode."""
        return SoloRuns(partial(self._executor, mode), self._places, bounds=bounds_of(self._settings))

    async def aclose(self) -> None:
        """Kill and confirm dead whatever is left."""
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        await self._opened.aclose()

    async def _executor(self, mode: ExecutionMode) -> LocalExecutor:
        task = self._opening.get(mode)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._opening[mode] = asyncio.create_task(self._open(mode), name=f"open solo for {mode}")
        return await asyncio.shield(task)

    async def _open(self, mode: ExecutionMode) -> LocalExecutor:
        reasons: list[str] = []
        for way in self._ways:
            try:
                return await self._open_way(way, mode)
            except Unavailable as reason:
                reasons.append(f"{way}: {reason}")
        raise Unavailable("; ".join(reasons))

    async def _open_way(self, way: SoloWay, mode: ExecutionMode) -> LocalExecutor:
        platform: Platform = "node" if mode in _NODE else "v8"
        match way:
            case SoloWay.DOCKER:
                await runner_image_is_there(self._settings)
                return self._kept(self._docker(self._services("node"), self._terms()))
            case SoloWay.PROCESS:
                return await self._open_processes(platform, mode)
            case _:
                inside = _INSIDE[platform]
                make = partial(
                    make_engine_box, await self._boxes(), inside, self._terms(), self._services(platform), alone=True
                )
                return self._kept(BoxPerNode(BoxSupply(make, ready=READY), self._terms()))

    async def _open_processes(self, platform: Platform, mode: ExecutionMode) -> LocalExecutor:
        if mode not in _WITHOUT_BOX:
            raise Unavailable(
                f"a process of its own has no wall around it, and this run is due {mode}; set FLO_SOLO=box, or auto"
            )
        make = await self._opened.enter_async_context(
            open_processes(self._settings, platform, self._terms(), self._services(platform))
        )
        log.warning(
            "solo.in_processes",
            danger="nodes that run alone have processes of their own, and no more of a wall than other nodes here",
            fix="have boxes work (`flo doctor` says what is missing), or set FLO_SOLO=docker",
        )
        return self._kept(BoxPerNode(BoxSupply(make, ready=READY), self._terms()))

    def _kept(self, executor: LocalExecutor) -> LocalExecutor:
        self._opened.push_async_callback(executor.aclose)
        return executor

    def _terms(self) -> Terms:
        settings = self._settings
        return Terms(
            memory_mb=settings.solo_memory_mb, inline_http_cap=_NO_CAP, http_places=settings.max_inline_http,
            public_url=settings.public_url.rstrip("/"),
        )  # fmt: skip
