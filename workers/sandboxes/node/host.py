"""One Node host: start it, talk to it, kill it and confirm it dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import Unavailable
from workers.sandboxes.node.jail import HostDeath, HostProcess, Jail, resident_mb
from workers.sandboxes.node.program import HostProgram
from workers.sandboxes.node.setup import explain_start

#: Longest line that a host may say, in bytes; one that says more is taken to be mad, and killed.
LONGEST_LINE = 256 * 1024 * 1024
#: Seconds that a process may live on after it has closed its socket.
LAST_MOMENT = 0.5


class NodeHost(asyncio.Protocol):
    """A Node process and the socket to it. Messages are JSON objects, one per line.

    `on_message` is called for each that arrives and `on_death` once, when the process is confirmed dead.
    """

    def __init__(
        self, *, on_message: Callable[[NodeHost, dict[str, Any]], None], on_death: Callable[[NodeHost], None]
    ) -> None:
        self._on_message = on_message
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._process: HostProcess | None = None
        self._transport: asyncio.Transport | None = None
        self._burial: asyncio.Task[None] | None = None
        self._partial: list[bytes] = []
        self._outgoing: list[bytes] = []
        self.name = ""
        #: How it ended, once it is confirmed dead.
        self.death: HostDeath | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Answer the exit code (minus the signal), or None while it lives."""
        return self.death.code if self.death is not None else None

    def resident_mb(self) -> float:
        """Read how much memory it has now, in MB."""
        return resident_mb(self.pid)

    async def start(self, program: HostProgram, *, jail: Jail, node: Path) -> None:
        """Start the process and wait until it is ready; raise Unavailable with the reason if it never is."""
        self.name = program.name
        self._process = await jail.start(program, node=node)
        self._burial = self._loop.create_task(self._bury(self._process))
        try:
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=self._process.channel)
            await self._ready
        except BaseException:
            await self.aclose()
            raise

    def send(self, line: bytes) -> None:
        """Send one line; all that is sent in one turn of the loop goes with one write."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(line)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        if lines and self._partial:
            lines[0] = b"".join([*self._partial, lines[0]])
            self._partial.clear()
        if rest:
            self._partial.append(rest)
        try:
            for line in lines:
                self._hear(orjson.loads(line))
        except (ValueError, LookupError, TypeError, AttributeError):
            self.kill()
        if len(self._partial) > 1 and sum(map(len, self._partial)) > LONGEST_LINE:
            self.kill()

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] != "ready":
            self._on_message(self, message)
        elif not self._ready.done():
            self._ready.set_result(None)

    def kill(self) -> None:
        """Kill the process now; `on_death` follows."""
        if self._process is not None:
            self._process.kill()

    async def aclose(self) -> None:
        """Kill the process and return when it is confirmed dead."""
        self.kill()
        if self._burial is not None:
            self._gone.set()
            await asyncio.shield(self._burial)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()

    async def _bury(self, process: HostProcess) -> None:
        """Confirm the process dead once its socket is closed, and tell."""
        await self._gone.wait()
        waiting = asyncio.create_task(process.wait())
        # It is most likely dead, and how it died is told better by itself than by a kill on top.
        await asyncio.wait([waiting], timeout=LAST_MOMENT)
        process.kill()
        self.death = death = await waiting
        if self._transport is not None:
            self._transport.abort()
        else:
            process.channel.close()
        if not self._ready.done():
            self._ready.set_exception(Unavailable(explain_start(self.name, death.code, death.last_words)))
            self._ready.exception()  # looked at here, in case nobody waits for it any more
        self._on_death(self)
