"""Gives each run the execution mode that it is due, and holds it to what that mode allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace

import structlog

from schemas.catalog import Catalog
from schemas.errors import Refused, Unavailable
from schemas.flow import FlowDocument
from schemas.modes import mode_for
from schemas.outcome import ErrorKind, Failed, Outcome, RunError
from schemas.settings import ExecutionMode, Settings
from workers.app_limits import LimitsOfApps
from workers.engine.sink import EventSink
from workers.executors.base import LocalExecutor, RunOrder
from workers.sandboxes.box.egress import egress_to

log = structlog.get_logger()

#: How an executor is opened; each is, when a run first needs it.
OpenExecutor = Callable[[], Awaitable[LocalExecutor]]


class ModeExecutor:
    """One executor for each mode, and the choice among them.

    A mode that is not given does not work here: a run that wants it goes to another worker, or waits for one.
    """

    def __init__(
        self,
        openings: Mapping[ExecutionMode, OpenExecutor],
        *,
        settings: Settings,
        limits: LimitsOfApps,
        catalog: Catalog,
    ) -> None:
        self._openings = openings
        self._settings = settings
        self._limits = limits
        self._catalog = catalog
        self._open: dict[ExecutionMode, asyncio.Task[LocalExecutor]] = {}
        self._is_chosen = settings.execution_mode is not None

    async def start(self) -> ExecutionMode:
        """Open what runs without a wish of their own need, and say which mode that is; a first run does so, too.

        Where the operator names none it is the strongest that works here. Raises Unavailable with the reason when the
        named one does not.
        """
        if not self._is_chosen:
            self._settings = self._settings.in_mode(await self._strongest())
            self._is_chosen = True
        await self._executor(self._settings.mode)
        return self._settings.mode

    async def _strongest(self) -> ExecutionMode:
        try:
            await self._executor(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
        except Unavailable as reason:
            log.warning("mode.fell_back", mode=str(ExecutionMode.SANDBOX_CODE_ONLY), reason=str(reason))
            return ExecutionMode.SANDBOX_CODE_ONLY
        return ExecutionMode.SANDBOX_CODE_AND_PROCESS

    async def run(
        self, order: RunOrder, events: EventSink, *, at_least: ExecutionMode = ExecutionMode.UNSANDBOXED
    ) -> Outcome:
        """Execute a run in the mode that it is due, or in `at_least` if that is stronger."""
        if not self._is_chosen:
            await self.start()
        limits = await self._limits.read(order.app)
        try:
            mode = _stronger(mode_for(order.backend_config, limits, self._settings), at_least)
        except Refused as refusal:
            return Failed(error=RunError(kind=ErrorKind.FORBIDDEN, message=str(refusal)))
        for error in refusals(order.document, self._catalog, mode):
            return Failed(error=error)
        egress = egress_to(limits.egress if limits.egress is not None else self._settings.reach)
        executor = await self._executor(mode)
        return await executor.run(order if order.egress == egress else replace(order, egress=egress), events)

    async def aclose(self) -> None:
        opened = await asyncio.gather(*self._open.values(), return_exceptions=True)
        await asyncio.gather(*(one.aclose() for one in opened if not isinstance(one, BaseException)))

    async def _executor(self, mode: ExecutionMode) -> LocalExecutor:
        task = self._open.get(mode)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._open[mode] = asyncio.create_task(self._opened(mode), name=f"open {mode}")
        return task.result() if task.done() else await asyncio.shield(task)

    async def _opened(self, mode: ExecutionMode) -> LocalExecutor:
        return await self._openings[mode]()


class NamespaceExecutor:
    """Executes runs in boxes, also where the server's mode would not."""

    def __init__(self, modes: ModeExecutor) -> None:
        self._modes = modes

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        return await self._modes.run(order, events, at_least=ExecutionMode.SANDBOX_PROCESS)

    async def aclose(self) -> None:
        """Nothing of its own to close: the boxes are those of the modes."""


def refusals(document: FlowDocument, catalog: Catalog, mode: ExecutionMode) -> Iterator[RunError]:
    """List the nodes that this mode does not allow."""
    for node_id, used in catalog.used_by(document):
        if mode not in used.modes:
            modes = " or ".join(sorted(used.modes))
            message = f"{used.type} is not allowed in execution mode {mode}; it runs with FLO_EXECUTION_MODE={modes}"
            yield RunError(kind=ErrorKind.FORBIDDEN, message=message, node_id=node_id)


def _stronger(one: ExecutionMode, other: ExecutionMode) -> ExecutionMode:
    return other if one.is_weaker_than(other) else one
