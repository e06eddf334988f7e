"""The namespace sandbox: fills orders, each with a box of its own, whichever way boxes are made here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from schemas.errors import Unavailable
from workers.sandboxes.box import names, outcome
from workers.sandboxes.box.base import (
    BoxedProgram, BoxLimits, CommandOrder, CommandOutcome, OnOutput, ProgramOrder, PythonOrder, PythonOutcome,
)  # fmt: skip
from workers.sandboxes.box.cgroups import Cgroups
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.box.inside.room import PROXY_PORT
from workers.sandboxes.box.inside.task import Task
from workers.sandboxes.box.life import BoxLife, Plan
from workers.sandboxes.box.limits import rlimits
from workers.sandboxes.box.outcome import Ending, Halt
from workers.sandboxes.box.proxy import Proxy
from workers.sandboxes.box.ways import Way


class NamespaceBox:
    """Makes a fresh box for every order. `open.open_box` opens one."""

    def __init__(
        self, way: Way, cgroups: Cgroups, *, environment: Mapping[str, str],
        open_proxy: Callable[[Egress], Proxy] = Proxy,
    ) -> None:  # fmt: skip
        self.way = way
        self.cgroups = cgroups
        self._environment = dict(environment)
        self._open_proxy = open_proxy
        self._endings: dict[BoxLife, asyncio.Task[Ending]] = {}
        self._closing = False

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        names.check_argv(order.argv)
        names.check_files(order.collect, what="file to collect")
        plan = Plan(
            task=self._task(order, argv=order.argv, collect=order.collect),
            body=b"".join(order.files.values()), stdin=order.stdin, limits=order.limits, egress=order.egress,
            timeout=order.limits.timeout, on_output=on_output,
        )  # fmt: skip
        return outcome.judge_command(order.limits, await self._live(plan))

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        task = self._task(
            order, source=order.source, inputs=dict(order.inputs), filename=order.filename,
            max_result_bytes=order.limits.max_output_bytes,
        )  # fmt: skip
        plan = Plan(
            task=task, body=b"".join(order.files.values()), limits=order.limits, egress=order.egress,
            timeout=order.limits.timeout, extra="pipe", on_output=on_output,
        )  # fmt: skip
        return outcome.judge_python(order.limits, order.filename, await self._live(plan))

    async def start(self, order: ProgramOrder, on_output: OnOutput) -> BoxedProgram:
        if not order.entry:
            names.check_argv(order.argv)
        task = self._task(
            order, argv=order.argv, entry=order.entry, inputs=dict(order.inputs), extra_fd=order.channel_fd
        )
        plan = Plan(
            task=task, body=b"".join(order.files.values()), limits=order.limits, egress=order.egress,
            timeout=None, extra="socket", on_output=on_output,
        )  # fmt: skip
        life = await self._begin(plan)
        return _Program(order.limits, life, self._endings[life])

    async def aclose(self) -> None:
        self._closing = True
        for life in list(self._endings):
            life.halt(Halt.ASKED)
        await asyncio.gather(*self._endings.values(), return_exceptions=True)
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
        if self._closing:
            raise Unavailable("the sandbox is closing")
        life = BoxLife(plan, self.way, self.cgroups, self._open_proxy)
        await life.start()
        ending = asyncio.get_running_loop().create_task(life.finish())
        self._endings[life] = ending
        ending.add_done_callback(lambda _: self._endings.pop(life, None))
        return life

    def _task(self, order: CommandOrder | PythonOrder | ProgramOrder, **what: Any) -> Task:
        """Check what all kinds of order share, and say it in the words of the far side."""
        names.check_env(order.env)
        names.check_files(order.files, what="file")
        env = {**self._environment, **order.env}
        if order.egress.reach != "none":
            env.update(dict.fromkeys(_PROXY_VARIABLES, f"http://127.0.0.1:{PROXY_PORT}"))
        python = bool(what.get("source") or what.get("entry"))
        return Task(
            env=env,
            files=tuple((name, len(content)) for name, content in order.files.items()),
            collect_bytes=order.limits.max_output_bytes,
            rlimits=rlimits(order.limits, python=python, memory_is_held="memory" in self.cgroups.held),
            **what,
        )


#: What programs look at to find a proxy; curl wants the lower-case one.
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


class _Program:
    def __init__(self, limits: BoxLimits, life: BoxLife, ending: asyncio.Task[Ending]) -> None:
        self._limits = limits
        self._life = life
        self._ending = ending
        assert life.channel is not None
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
