"""One box from its task to its end: feed it, listen to it, watch its limits, kill it, confirm it dead."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Literal

from workers.sandboxes.box.base import BoxLimits, OnOutput
from workers.sandboxes.box.cgroups import Cgroups
from workers.sandboxes.box.control import Control
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.box.inside import frames
from workers.sandboxes.box.inside.task import Task
from workers.sandboxes.box.outcome import Ending, Halt
from workers.sandboxes.box.proxy import Proxy
from workers.sandboxes.box.shell import Shell
from workers.sandboxes.box.streams import Lines, Reader, Writer

#: How often the processor time of a box is looked at, in seconds.
_CPU_PERIOD = 0.2
#: What an answer may have beyond its limit, to tell of it: the code's own process keeps to the limit.
_ANSWER_SLACK = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that one box needs to know, whatever kind of order it came from."""

    task: Task
    body: bytes
    limits: BoxLimits
    egress: Egress
    on_output: OnOutput
    stdin: bytes = b""
    #: Wall clock; None for a program that lives on.
    timeout: timedelta | None = None
    #: What the program's socket is for: its answer, or its owner.
    socket: Literal["answer", "channel"] | None = None


class BoxLife:
    """Starts when made. Await `finish` in a task that is never cancelled; `halt` ends the box before its time."""

    def __init__(
        self, plan: Plan, shell: Shell, cgroups: Cgroups, open_proxy: Callable[[Egress], Proxy], began: float
    ) -> None:
        self._plan = plan
        self._shell = shell
        self._cgroups = cgroups
        self._loop = asyncio.get_running_loop()
        self._began = began
        self._halt: Halt | None = None
        # Made with the box: what it may do is decided by when it began.
        self._proxy = open_proxy(plan.egress)
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._answer = bytearray()
        self._written = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._cpu_watch: asyncio.TimerHandle | None = None
        shell.group.limit(plan.limits)
        self._lines = {name: Lines(partial(plan.on_output, name)) for name in self._kept}
        self._control = Control(
            shell.control, frames.pack(plan.task.as_json(), plan.body), most_bytes=plan.task.collect_bytes,
            on_listener=self._proxy.serve if plan.egress.reach != "none" else None,
        )  # fmt: skip
        self._writer = Writer(shell.stdin, plan.stdin)
        self._readers = [
            Reader(shell.stdout, partial(self._hear, "stdout")),
            Reader(shell.stderr, partial(self._hear, "stderr")),
        ]
        if plan.socket == "answer":
            self._readers.append(Reader(shell.channel.detach(), self._hear_answer))
        if plan.timeout is not None:
            left = self._began + plan.timeout.total_seconds()
            self._deadline = self._loop.call_at(left, self.halt, Halt.TIME)
        if plan.limits.cpu_seconds is not None:
            self._watch_cpu(plan.limits.cpu_seconds)

    @property
    def channel(self) -> socket.socket:
        return self._shell.channel

    def halt(self, why: Halt) -> None:
        """Kill the box now, and shut its way out; the first reason counts."""
        if not self._shell.is_dead:
            self._proxy.shut()
            self._halt = self._halt or why
            self._shell.life.kill()
            self._shell.group.kill()

    async def finish(self) -> Ending:
        """Return when the box is dead and nothing of it is left."""
        shell = self._shell
        death = await shell.life.dead
        # Every process that could write is dead, so each of these comes to its end.
        words = await self._control.ended
        for reader in self._readers:
            await reader.ended
        wall = timedelta(seconds=self._loop.time() - self._began)
        self._writer.close()
        for timer in (self._deadline, self._cpu_watch):
            if timer is not None:
                timer.cancel()
        for lines in self._lines.values():
            lines.end()
        await self._proxy.aclose()
        shell.channel.close()
        tolls = shell.group.read()
        self._cgroups.remove(shell.group)
        # A kill that came after the program's own end changed nothing; too much output stays too much.
        was_over = "exit" in words.head and self._halt is not Halt.OUTPUT
        return Ending(
            halt=None if was_over else self._halt, words=words, death=death, tolls=tolls, held=self._cgroups.held,
            wall=wall, stdout=bytes(self._kept["stdout"]), stderr=bytes(self._kept["stderr"]),
            answer=bytes(self._answer),
        )  # fmt: skip

    def _hear(self, stream: str, data: bytes) -> None:
        room = self._plan.limits.max_output_bytes - self._written
        self._written += len(data)
        if len(data) > room:
            data = data[: max(0, room)]
            self.halt(Halt.OUTPUT)
        if data:
            self._kept[stream] += data
            self._lines[stream].take(data)

    def _hear_answer(self, data: bytes) -> None:
        if len(self._answer) <= self._plan.limits.max_output_bytes + _ANSWER_SLACK:
            self._answer += data
        else:
            self.halt(Halt.OUTPUT)

    def _watch_cpu(self, most: float) -> None:
        spent = self._shell.group.cpu_seconds()
        if spent is not None and spent > most:
            self.halt(Halt.CPU)
        else:
            self._cpu_watch = self._loop.call_later(_CPU_PERIOD, self._watch_cpu, most)
