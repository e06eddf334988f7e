"""The namespace sandbox: fills orders, each with a box of its own, whichever way boxes are made here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from schemas.errors import Unavailable
from schemas.outcome import ErrorKind
from workers.sandboxes.box import names, outcome
from workers.sandboxes.box.base import (
    BoxedProgram,
    BoxLimits,
    CommandOrder,
    CommandOutcome,
    Exited,
    OnOutput,
    ProgramOrder,
    PythonOrder,
    PythonOutcome,
    Stopped,
    ignore_output,
)  # fmt: skip
from workers.sandboxes.box.cgroups import Cgroups
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.box.inside.room import PROXY_PORT
from workers.sandboxes.box.inside.task import Furnishing, Task
from workers.sandboxes.box.life import BoxLife, Plan
from workers.sandboxes.box.limits import rlimits
from workers.sandboxes.box.outcome import Ending, Halt
from workers.sandboxes.box.proxy import Proxy
from workers.sandboxes.box.shell import Shell, open_shell
from workers.sandboxes.box.ways import Way

log = structlog.get_logger(__name__)

_Found = TypeVar("_Found", CommandOutcome, PythonOutcome)


class NamespaceBox:
    """Makes a fresh box for every order. `open.open_box` opens one."""

    def __init__(
        self, way: Way, cgroups: Cgroups, *, environment: Mapping[str, str],
        open_proxy: Callable[[Egress], Proxy] = Proxy, spares: int = 2,
    ) -> None:  # fmt: skip
        self.way = way
        self.cgroups = cgroups
        self._environment = dict(environment)
        self.open_proxy = open_proxy
        self._endings: dict[BoxLife, asyncio.Task[Ending]] = {}
        self._closing = False
        self._most_spares = spares
        self._spares: list[Shell] = []
        self._refilling: asyncio.Task[None] | None = None

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        names.check_argv(order.argv)
        names.check_files(order.collect, what="file to collect")
        names.check_folder(order.cwd)
        names.check_files(order.tmp, what="file for /tmp")
        tmp = tuple((name, len(content)) for name, content in order.tmp.items() if self.way.confines)
        task = self._task(
            order, argv=order.argv, cwd=order.cwd, collect=order.collect, keeps_tmp=order.keeps_tmp, tmp=tmp
        )
        plan = Plan(
            task=task, body=b"".join((*order.files.values(), *(order.tmp[name] for name, _ in tmp))),
            stdin=order.stdin, limits=order.limits, egress=order.egress, timeout=order.limits.timeout,
            on_output=on_output,
        )  # fmt: skip
        return _noted(order.app, outcome.judge_command(order.limits, await self._live(plan)))

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        task = self._task(
            order, source=order.source, inputs=dict(order.inputs), filename=order.filename,
            max_result_bytes=order.limits.max_output_bytes, extra_fd=_ANSWER_FD,
        )  # fmt: skip
        plan = Plan(
            task=task, body=b"".join(order.files.values()), limits=order.limits, egress=order.egress,
            timeout=order.limits.timeout, socket="answer", on_output=on_output,
        )  # fmt: skip
        return _noted(order.app, outcome.judge_python(order.limits, order.filename, await self._live(plan)))

    async def start(self, order: ProgramOrder, on_output: OnOutput) -> BoxedProgram:
        if not order.entry:
            names.check_argv(order.argv)
        task = self._task(
            order, argv=order.argv, entry=order.entry, inputs=dict(order.inputs), extra_fd=order.channel_fd
        )
        plan = Plan(
            task=task, body=b"".join(order.files.values()), limits=order.limits, egress=order.egress,
            timeout=None, socket="channel", on_output=on_output,
        )  # fmt: skip
        life = await self._begin(plan)
        return _Program(order.limits, life, self._endings[life])

    async def try_out(self) -> None:
        """Run a box; raise Unavailable with what is missing if that does not work."""
        limits = BoxLimits(timeout=_TRIAL, memory_mb=64, tmp_mb=1)
        found = await self.run(CommandOrder(argv=("true",), app="flo", limits=limits), ignore_output)
        match found:
            case Exited(code=0):
                return
            case Exited(code=code, stderr=said):
                raise Unavailable(f"`true` ended with code {code} in a box: {said.decode(errors='replace')}")
            case Stopped(error=error):
                raise Unavailable(error.message)

    async def aclose(self) -> None:
        self._closing = True
        for life in list(self._endings):
            life.halt(Halt.ASKED)
        await asyncio.gather(*self._endings.values(), return_exceptions=True)
        if self._refilling is not None:
            await asyncio.wait([self._refilling])
        await asyncio.gather(*(spare.discard(self.cgroups) for spare in self._spares))
        await self.way.aclose()
        await self.cgroups.aclose()

    async def _live(self, plan: Plan) -> Ending:
        life = await self._begin(plan)
        ending = self._endings[life]
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            life.halt(Halt.ASKED)
            await _confirm(ending)
            raise

    async def _begin(self, plan: Plan) -> BoxLife:
        began = asyncio.get_running_loop().time()
        shell = await self._take(plan)
        life = BoxLife(plan, shell, self.cgroups, self.open_proxy, began)
        ending = asyncio.get_running_loop().create_task(life.finish())
        self._endings[life] = ending
        ending.add_done_callback(partial(self._end, life, plan))
        return life

    def _end(self, life: BoxLife, plan: Plan, _: asyncio.Task[Ending]) -> None:
        self._endings.pop(life, None)
        # Only now, and a little later: the making of the next box would take the processor from this one's answer.
        asyncio.get_running_loop().call_later(_REFILL_PAUSE, self._refill, plan)

    async def _take(self, plan: Plan) -> Shell:
        """Take a spare box that fits, or make one; either way it was never used."""
        if self._closing:
            raise Unavailable("the sandbox is closing")
        for spare in [spare for spare in self._spares if self._fits(spare, plan)]:
            self._spares.remove(spare)
            if not spare.is_dead:
                return spare
            await spare.discard(self.cgroups)
        return await open_shell(self.way, self.cgroups, self._furnishing(plan), plan.limits)

    def _furnishing(self, plan: Plan) -> Furnishing:
        return Furnishing(
            tmp_mb=plan.limits.tmp_mb,
            has_proxy=self.way.confines and plan.egress.reach != "none",
            memory_is_held="memory" in self.cgroups.held,
        )

    def _fits(self, spare: Shell, plan: Plan) -> bool:
        return spare.given == self._furnishing(plan) and spare.controllers == self.cgroups.wanted(plan.limits)

    def _refill(self, plan: Plan) -> None:
        if self._refilling is None and not self._closing:
            self._refilling = asyncio.get_running_loop().create_task(self._make_spares(plan))

    async def _make_spares(self, plan: Plan) -> None:
        """Make boxes for the next orders, taking them to be like the last one."""
        try:
            for odd in [spare for spare in self._spares if not self._fits(spare, plan)]:
                self._spares.remove(odd)
                await odd.discard(self.cgroups)
            while len(self._spares) < self._most_spares and not self._closing:
                self._spares.append(await open_shell(self.way, self.cgroups, self._furnishing(plan), plan.limits))
        except (Unavailable, OSError):
            pass  # the next order meets the same, and tells
        finally:
            self._refilling = None

    def _task(self, order: CommandOrder | PythonOrder | ProgramOrder, **what: Any) -> Task:
        """Check what all kinds of order share, and say it in the words of the far side."""
        names.check_env(order.env)
        names.check_files(order.files, what="file")
        env = {**self._environment, **order.env}
        if self.way.confines and order.egress.reach != "none":
            env.update(dict.fromkeys(_PROXY_VARIABLES, f"http://127.0.0.1:{PROXY_PORT}"))
        python = bool(what.get("source") or what.get("entry"))
        return Task(
            env=env,
            files=tuple((name, len(content)) for name, content in order.files.items()),
            collect_bytes=order.limits.max_output_bytes,
            rlimits=rlimits(order.limits, python=python, held=self.cgroups.held, own_user=self.way.confines),
            **what,
        )


#: Where a Python answer goes; the program never sees the number.
_ANSWER_FD = 3
#: For the box that shows whether boxes work here.
_TRIAL = timedelta(seconds=10)
#: Seconds after an order at which a spare box is made for the next.
_REFILL_PAUSE = 0.002
#: What programs look at to find a proxy; curl wants the lower-case one.
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


def _noted(app: str, found: _Found) -> _Found:
    """Tell the operator whose box met a limit or a fault; what a user's own code raised is none of his."""
    if (
        isinstance(found, Stopped)
        and found.error.kind is not ErrorKind.USER
        and found.error.kind is not ErrorKind.SYNTAX
    ):
        log.info(
            "box.stopped",
            app=app,
            kind=str(found.error.kind),
            raise_with=(found.error.details or {}).get("raise_with"),
            wall_seconds=round(found.usage.wall.total_seconds(), 3),
            peak_memory_bytes=found.usage.peak_memory_bytes,
        )
    return found


class _Program:
    def __init__(self, limits: BoxLimits, life: BoxLife, ending: asyncio.Task[Ending]) -> None:
        self._limits = limits
        self._life = life
        self._ending = ending
        self.channel: socket.socket = life.channel

    def kill(self) -> None:
        self._life.halt(Halt.ASKED)

    async def wait(self) -> CommandOutcome:
        return outcome.judge_command(self._limits, await asyncio.shield(self._ending))


async def _confirm(ending: asyncio.Task[Ending]) -> None:
    """Wait until the box is gone, though we be cancelled again: it is being killed, so this is short."""
    while not ending.done():
        try:
            await asyncio.wait([ending])
        except asyncio.CancelledError:
            continue
