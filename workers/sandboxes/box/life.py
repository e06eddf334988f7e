"""One box from the worker's side: open its pipes, start it, watch its limits, kill it, confirm it dead."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from workers.sandboxes.box.base import BoxLimits, OnOutput
from workers.sandboxes.box.cgroups import Cgroups, Group
from workers.sandboxes.box.control import Control
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.box.inside import frames
from workers.sandboxes.box.inside.task import Furnishing, Task
from workers.sandboxes.box.outcome import Ending, Halt
from workers.sandboxes.box.proxy import Proxy
from workers.sandboxes.box.streams import Lines, Reader, Writer
from workers.sandboxes.box.ways import Life, Way

#: How often the processor time of a box is looked at, in seconds.
_CPU_PERIOD = 0.2
#: Bytes of scratch space per file that may exist in it: a limit on inodes.
_BYTES_PER_FILE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that one box needs, whatever kind of order it came from."""

    task: Task
    body: bytes
    limits: BoxLimits
    egress: Egress
    #: Wall clock; None for a program that lives on.
    timeout: timedelta | None
    #: A pipe for a result, or a socket for a program; None for a command.
    extra: Literal["pipe", "socket"] | None = None
    stdin: bytes = b""
    on_output: OnOutput


class BoxLife:
    """Call `start`, then `finish`, and `halt` in between at will. Nothing of the box outlives `finish`."""

    def __init__(self, plan: Plan, way: Way, cgroups: Cgroups, open_proxy: Callable[[Egress], Proxy]) -> None:
        self._plan = plan
        self._way = way
        self._cgroups = cgroups
        self._open_proxy = open_proxy
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._halt: Halt | None = None
        self._life: Life | None = None
        self._group: Group | None = None
        self._proxy: Proxy | None = None
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._answer = bytearray()
        self._written = 0
        self._timers: list[asyncio.TimerHandle] = []
        self.channel: socket.socket | None = None

    async def start(self) -> None:
        """Make the box and set the program going."""
        plan = self._plan
        self._group = self._cgroups.make(plan.limits)
        theirs: list[int] = []
        ours: list[int] = []
        control, far_control = socket.socketpair()
        try:
            far_in, near_in = os.pipe()
            near_out, far_out = os.pipe()
            near_err, far_err = os.pipe()
            theirs = [far_in, far_out, far_err]
            ours = [near_in, near_out, near_err]
            near_extra = self._open_extra(theirs)
            theirs += self._group.open_procs()
            self._life = await self._way.launch(self._furnishing(), [far_control.fileno(), *theirs])
        except BaseException:
            for fd in ours:
                os.close(fd)
            control.close()
            self._close_channel()
            await self._remove_group()
            raise
        finally:
            far_control.close()
            for fd in theirs:
                os.close(fd)
        self._writer = Writer(near_in, plan.stdin)
        self._lines = {name: Lines(lambda line, name=name: plan.on_output(name, line)) for name in self._kept}  # type: ignore[misc]
        self._readers = [
            Reader(near_out, lambda data: self._hear("stdout", data)),
            Reader(near_err, lambda data: self._hear("stderr", data)),
        ]
        if near_extra is not None:
            self._readers.append(Reader(near_extra, self._hear_answer))
        self._control = Control(
            control, frames.pack(plan.task.as_json(), plan.body), most_bytes=plan.task.collect_bytes,
            on_listener=self._serve_proxy if plan.egress.reach != "none" else None,
        )  # fmt: skip
        if plan.timeout is not None:
            self._timers.append(self._loop.call_later(plan.timeout.total_seconds(), self.halt, Halt.TIME))
        if plan.limits.cpu_seconds is not None:
            self._watch_cpu(plan.limits.cpu_seconds)

    def halt(self, why: Halt) -> None:
        """Kill the box now; the first reason counts."""
        if self._life is not None and not self._life.dead.done():
            self._halt = self._halt or why
            self._life.kill()
            assert self._group is not None
            self._group.kill()

    async def finish(self) -> Ending:
        """Return when the box is dead and nothing of it is left; meant for a task that is never cancelled."""
        assert self._life is not None
        assert self._group is not None
        death = await self._life.dead
        # Every process that could write is dead, so each of these ends.
        words = await self._control.ended
        for reader in self._readers:
            await reader.ended
        self._writer.close()
        for timer in self._timers:
            timer.cancel()
        for lines in self._lines.values():
            lines.end()
        if self._proxy is not None:
            await self._proxy.aclose()
        self._close_channel()
        tolls = self._group.read()
        await self._remove_group()
        return Ending(
            halt=self._halt if "exit" not in words.head or self._halt is Halt.OUTPUT else None,
            words=words, death=death, tolls=tolls, held=self._cgroups.held,
            wall=timedelta(seconds=self._loop.time() - self._began),
            stdout=bytes(self._kept["stdout"]), stderr=bytes(self._kept["stderr"]), answer=bytes(self._answer),
        )  # fmt: skip

    def _furnishing(self) -> Furnishing:
        limits = self._plan.limits
        return Furnishing(
            outside_id=-1,
            tmp_mb=limits.tmp_mb,
            tmp_files=max(64, limits.tmp_mb * (1 << 20) // _BYTES_PER_FILE),
            has_extra=self._plan.extra is not None,
            has_proxy=self._plan.egress.reach != "none",
        )

    def _open_extra(self, theirs: list[int]) -> int | None:
        """Open the result pipe or the channel; give the worker's end of the pipe."""
        if self._plan.extra == "pipe":
            near, far = os.pipe()
            theirs.append(far)
            return near
        if self._plan.extra == "socket":
            self.channel, far_end = socket.socketpair()
            self.channel.setblocking(False)
            theirs.append(far_end.detach())
        return None

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
        self._answer += data
        if len(self._answer) > self._plan.limits.max_output_bytes + _BYTES_PER_FILE * 16:
            self.halt(Halt.OUTPUT)

    def _serve_proxy(self, listener: socket.socket) -> None:
        self._proxy = self._open_proxy(self._plan.egress)
        self._proxy.serve(listener)

    def _watch_cpu(self, most: float) -> None:
        assert self._group is not None
        spent = self._group.cpu_seconds()
        if spent is not None and spent > most:
            self.halt(Halt.CPU)
        else:
            self._timers[1:] = [self._loop.call_later(_CPU_PERIOD, self._watch_cpu, most)]

    def _close_channel(self) -> None:
        if self.channel is not None:
            self.channel.close()

    async def _remove_group(self) -> None:
        assert self._group is not None
        await self._cgroups.remove(self._group)
