"""What a runner has inside its box: where code runs, the way out, and what it must ask its worker for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import httpx
import structlog

from workers.engine.registry import HubRegistry, Registry
from workers.nodes.node import NodeTools
from workers.nodes.proxied import open_proxied_client
from workers.runner import wire
from workers.runner.asks import AskedBox, AskedPreparer, Asks
from workers.sandboxes.base import CodeOrder, CodeOutcome, CodeSandbox, OnLog
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.node.jail import NoJail
from workers.sandboxes.v8 import V8Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Everything that the runs of one box share."""

    code: StartedLater
    http: httpx.AsyncClient
    registry: Registry

    def tools_for(self, order: wire.Said, asks: Asks, run: int) -> NodeTools:
        """Make what the nodes of one run may use."""
        return NodeTools(
            code=self.code,
            http=self.http,
            app=order["app"],
            run_id=order["run_id"],
            attempt=order["attempt"],
            inline_http_cap=timedelta(seconds=order["inline_http_cap"]),
            preparer=AskedPreparer(asks, run),
            box=AskedBox(asks, run),
            egress=Egress(reach=order["reach"], hosts=tuple(order["hosts"])),
        )


@asynccontextmanager
async def open_inside(*, mode: str, hub: str, proxy: str, with_code: bool) -> AsyncIterator[Inside]:
    """Open what the engine of a box in this mode has; `proxy` is the only way out, or empty.

    `with_code` starts the place for code at once, though nothing waits for it.
    """
    _log_to_stderr()
    async with AsyncExitStack() as opened:
        code = StartedLater(V8Pool(hosts=1, jail=NoJail(prefix=())))  # the box is its jail, and dies with its worker
        opened.push_async_callback(code.aclose)
        if with_code:
            code.start_soon()
        http = await opened.enter_async_context(open_proxied_client(proxy))
        yield Inside(code=code, http=http, registry=HubRegistry(Path(hub)))


class _Startable(CodeSandbox, Protocol):
    async def start(self) -> None: ...


class StartedLater:
    """A code sandbox that starts when code first needs it, or when it is told that there is time."""

    def __init__(self, sandbox: _Startable) -> None:
        self._sandbox = sandbox
        self._starting: asyncio.Task[None] | None = None

    def start_soon(self) -> None:
        """Start without being waited for; whoever runs code meets whatever went wrong."""
        self._start().add_done_callback(lambda task: task.cancelled() or task.exception())

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        await asyncio.shield(self._start())
        return await self._sandbox.run(order, on_log)

    async def aclose(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
            await self._sandbox.aclose()

    def _start(self) -> asyncio.Task[None]:
        if self._starting is None:
            self._starting = asyncio.create_task(self._sandbox.start(), name="code sandbox")
        return self._starting


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.PrintLoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
