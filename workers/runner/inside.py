"""What a runner has inside its box: where code runs, the way out, and what it must ask its worker for."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import httpx
import structlog

from schemas.json import JSONObject
from schemas.nodes.spec import described
from schemas.outcome import ErrorKind, RunError
from schemas.settings import ExecutionMode
from workers.engine.bulkhead import Bulkheads, MemoryBulkheads
from workers.engine.registry import HubRegistry, Registered, Registry
from workers.nodes.node import DEFAULT_HTTP_PLACES, NodeTools
from workers.nodes.proxied import open_proxied_client
from workers.runner import wire
from workers.runner.asks import AskedBox, AskedContainers, AskedNode, AskedNodes, AskedPreparer, Asks
from workers.runner.solo import AskedSolo
from workers.sandboxes.base import CodeOrder, CodeOutcome, CodeSandbox, OnLog
from workers.sandboxes.box.base import CommandOrder, CommandOutcome, OnOutput, PythonOrder, PythonOutcome, Stopped
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.box.plain import open_plain
from workers.sandboxes.commands import CommandSandbox
from workers.sandboxes.node.jail import NoJail
from workers.sandboxes.plain_node import PlainNodePool
from workers.sandboxes.v8 import V8Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Everything that the runs of one box share."""

    code: StartedLater
    #: Where commands and Python run as children of this process; None where each gets a fresh box from the worker.
    here: CommandSandbox | None
    #: The box is one node's own: nothing in it gets another.
    alone: bool
    http: httpx.AsyncClient
    registry: Registry
    bulkheads: Bulkheads = field(default_factory=MemoryBulkheads)
    http_places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DEFAULT_HTTP_PLACES))

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
            box=self.here or AskedBox(asks, run),
            containers=AskedContainers(asks, run),
            elsewhere=AskedNodes(asks, run),
            public_url=order["public_url"],
            egress=Egress(reach=order["reach"], hosts=tuple(order["hosts"])),
            solo=None if self.alone else AskedSolo(asks, run),
            http_places=self.http_places,
        )


@asynccontextmanager
async def open_inside(
    *,
    mode: str,
    hub: str,
    proxy: str,
    with_code: bool,
    custom: list[JSONObject],
    alone: bool = False,
    http_places: int = DEFAULT_HTTP_PLACES,
) -> AsyncIterator[Inside]:
    """Open what the engine of a box in this mode has; `proxy` is the only way out, or empty.

    `with_code` starts the place for code at once, though nothing waits for it. `custom` describes operators' own nodes.
    `alone` says that the box is one node's own: its commands run in here, whatever the mode, and nothing gets another.
    """
    _log_to_stderr()
    # A box that is one run's own is all the wall that its code needs; where an app's runs share one, code has its own.
    single_use = mode == ExecutionMode.SANDBOX_PROCESS
    async with AsyncExitStack() as opened:
        code = StartedLater(_code_sandbox(single_use))
        opened.push_async_callback(code.aclose)
        here = StartedPlain(_environment()) if single_use or alone else None
        if here is not None:
            opened.push_async_callback(here.aclose)
        if with_code:
            code.start_soon()
        http = await opened.enter_async_context(open_proxied_client(proxy))
        yield Inside(
            code=code, here=here, alone=alone, http=http, registry=registry_of(Path(hub), custom),
            http_places=asyncio.Semaphore(http_places),
        )  # fmt: skip


def registry_of(hub: Path, custom: list[JSONObject]) -> Registry:
    """Give all node types; operators' own are asked for."""
    asked = [Registered(node_type, AskedNode(node_type.type)) for node_type in map(described, custom)]
    return HubRegistry(hub, custom={each.type.type: each for each in asked})


def _code_sandbox(single_use: bool) -> _Startable:
    """No prefix: the box dies with its worker, and all in it."""
    if single_use:
        return PlainNodePool(hosts=1, prefix=(), env=_environment(), cwd=Path("/work"))
    return V8Pool(hosts=1, jail=NoJail(prefix=()))


def _environment() -> dict[str, str]:
    """What programs in this box find: what the box has, the way out among it."""
    return dict(os.environ)


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


class StartedPlain:
    """A place for plain processes, opened when the first is wanted; without an environment they get a minimal one."""

    def __init__(self, environment: Mapping[str, str] | None) -> None:
        self._environment = environment
        self._opening: asyncio.Task[NamespaceBox] | None = None

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        outcome = await (await self._open()).run(order, on_output)
        return _killed(outcome) if isinstance(outcome, Stopped) else outcome

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        outcome = await (await self._open()).run_python(order, on_output)
        return _killed(outcome) if isinstance(outcome, Stopped) else outcome

    async def aclose(self) -> None:
        if self._opening is not None:
            await (await self._opening).aclose()

    async def _open(self) -> NamespaceBox:
        if self._opening is None:
            self._opening = asyncio.create_task(open_plain(environment=self._environment), name="plain place")
        return await asyncio.shield(self._opening)


def _killed(stopped: Stopped) -> Stopped:
    """What is lost in a box of one run was ended by that run: nobody else can."""
    if stopped.error.kind is not ErrorKind.LOST:
        return stopped
    message = f"something in the flow ended the place in which its commands run: {stopped.error.message}"
    return replace(stopped, error=RunError(kind=ErrorKind.KILLED, message=message))


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.PrintLoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
