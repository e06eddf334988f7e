"""A container with our own program in it (`workers/runner/contained.py`), as a box with a program is: another wall.

What boxes do with a socket and a proxy of their own goes over the container's stdin and stdout, so that it works
without a network, and with a daemon on another machine.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from schemas.json import JSONObject, dumps
from schemas.outcome import ErrorKind, RunError
from workers.runner.contained import ANSWERED, ASKED, FIRST_PATIENCE, NOT_HELD
from workers.runner.trunk import Kind, Trunk
from workers.sandboxes.box.base import CommandOutcome, Exited, OnOutput, Stopped, Usage
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.box.inside.room import PROXY_PORT
from workers.sandboxes.box.proxy import Network, Proxy
from workers.sandboxes.box.streams import Lines
from workers.sandboxes.docker.container import Container, Ending, Yard
from workers.sandboxes.docker.spec import Spec

#: Where the worker's proxy seems to be, in a container.
PROXY = f"http://127.0.0.1:{PROXY_PORT}"
#: Of what it writes to stderr, the end is kept.
_LAST_WORDS = 4096
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")

LeaseLeft = Callable[[], timedelta]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How our programs in containers are held, and get out."""

    yard: Yard
    #: For how long the worker is still sure of its runs.
    lease_left: LeaseLeft
    network: Network

    async def start(
        self, spec: Spec, role: str, inside: JSONObject, egress: Egress, on_output: OnOutput
    ) -> ContainedProgram:
        """Start our program in a container. Raises what `Yard.start` does."""
        reaches = egress.reach != "none"
        env = {**spec.env, **(dict.fromkeys(_VARIABLES, PROXY) if reaches else {})}
        told = dumps({"role": role, "inside": {**inside, "proxy": PROXY if reaches else ""}})
        program = ContainedProgram(self, egress, on_output)
        await program.start(replace(spec, command=(told,), env=env))
        return program


class ContainedProgram:
    """A `BoxedProgram` whose box is a container. Its owner speaks over `channel`, stream 0 of the trunk."""

    def __init__(self, way: Way, egress: Egress, on_output: OnOutput) -> None:
        self._way = way
        self._loop = asyncio.get_running_loop()
        self._egress = egress
        self._proxy = Proxy(egress, way.network)
        self._container: Container | None = None
        self._is_mad = False
        self._said = bytearray()
        self._lines = Lines(lambda line: on_output("stderr", line))
        self._early: list[bytes] = []
        #: By the loop's clock: until then it may go on although nobody can end it.
        self._held_until = self._loop.time() + FIRST_PATIENCE
        self._trunk = Trunk(self._write, on_open=self._connected, on_hold=self._answer)
        self.channel, end = socket.socketpair()
        self.channel.setblocking(False)
        self._trunk.join(end)
        self._ended: asyncio.Task[CommandOutcome] | None = None

    async def start(self, spec: Spec) -> None:
        try:
            self._container = await self._way.yard.start(spec, self._hear, held_until=lambda: self._held_until)
        except BaseException:
            self._trunk.close()
            self.channel.close()
            raise
        for data in self._early:
            self._container.write(data)
        self._ended = self._loop.create_task(self._finish(self._container), name="program in a container")

    def mark(self, name: str) -> None:
        """Name its container after what it is for."""
        if self._container is not None:
            self._way.yard.mark(self._container, name)

    def kill(self) -> None:
        """Shut its way out at once, and have its container killed."""
        self._proxy.shut()
        if self._container is not None:
            self._container.kill()

    async def wait(self) -> CommandOutcome:
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    async def _finish(self, container: Container) -> CommandOutcome:
        ending = await asyncio.shield(container.ending)
        self._trunk.close()
        self._lines.end()
        self.channel.close()
        await self._proxy.aclose()
        return outcome_of(ending, bytes(self._said))

    def _write(self, data: bytes) -> None:
        if self._container is None:
            self._early.append(data)
        else:
            self._container.write(data)

    def _hear(self, stream: str, data: bytes) -> None:
        if stream == "stderr":
            self._said = (self._said + data)[-_LAST_WORDS:]
            self._lines.take(data)
            return
        try:
            self._trunk.feed(data)
        except ValueError:
            self._is_mad = True
            self.kill()

    def _connected(self) -> socket.socket | None:
        """Have the proxy serve a connection that was made in the container."""
        if self._proxy.is_shut or self._egress.reach == "none":
            return None
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._proxy.take(theirs)
        return ours

    def _answer(self, asked: bytes) -> None:
        """Tell for how long the container is held: for as long as our own lease lasts, and no moment longer."""
        (clock,) = ASKED.unpack(asked) if len(asked) == ASKED.size else (0.0,)
        left = max(0.0, self._way.lease_left().total_seconds())
        self._held_until = max(self._held_until, self._loop.time() + left)
        self._trunk.send(Kind.HOLD, 0, ANSWERED.pack(clock, int(left * 1000)))


def outcome_of(ending: Ending, said: bytes) -> CommandOutcome:
    """Put the end of our program's container in the words of boxes."""
    usage = Usage(
        wall=ending.wall, cpu=timedelta(0), peak_memory_bytes=0, cgroups=frozenset({"memory", "pids"}),
        was_short_of_memory=ending.was_short_of_memory,
    )  # fmt: skip
    error: RunError | None = None
    if ending.lost:
        error = RunError(kind=ErrorKind.LOST, message=f"the container was lost: {ending.lost}")
    elif ending.was_killed:
        error = RunError(kind=ErrorKind.CANCELLED, message="was killed, as its owner asked")
    elif ending.was_short_of_memory:
        error = RunError(kind=ErrorKind.MEMORY_EXCEEDED, message="used more memory than its limit")
    elif ending.code == NOT_HELD:
        message = "the container ended itself, as its worker did not say in time that it still has its lease"
        error = RunError(kind=ErrorKind.LOST, message=message)
    if error is not None:
        return Stopped(error=error, stdout=b"", stderr=said, usage=usage)
    code = ending.code or 0
    return Exited(code=128 - code if code > 128 else code, stdout=b"", stderr=said, files={}, missing={}, usage=usage)
