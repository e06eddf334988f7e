"""One Node host process: start it, talk to it, kill it and confirm it dead."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from schemas.errors import Unavailable

#: Bytes of a dead host's stderr that are read to learn why it died.
STDERR_TAIL = 4096

#: How a host is started: given Node's command line, answers the whole command. A jail goes here.
Launch = Callable[[Sequence[str]], Sequence[str]]


class V8Host(asyncio.Protocol):
    """A Node process and the socket to it. Messages are dicts, one per line.

    `on_message` is called for each that arrives and `on_death` once, after the process is confirmed dead.
    """

    def __init__(
        self, *, on_message: Callable[[V8Host, dict[str, Any]], None], on_death: Callable[[V8Host], None]
    ) -> None:
        self._on_message = on_message
        self._on_death = on_death
        self._partial: list[bytes] = []
        self._outgoing: list[bytes] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._stderr: IO[bytes] | None = None
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._dead: asyncio.Future[int] = self._loop.create_future()
        self._burial: asyncio.Task[None] | None = None
        #: True once this side has killed it.
        self.killed = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, command: Sequence[str], *, folder: Path) -> None:
        """Start the process and wait until it is ready; raise Unavailable with the reason if it never is."""
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is buried
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a vfork; there is nothing to wait for
                command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=self._stderr, cwd=folder, env={}
            )
        except OSError as problem:
            ours.close()
            self._stderr.close()
            raise Unavailable(f"{command[0]} does not start ({problem}): run scripts/setup") from None
        finally:
            theirs.close()
        self._transport, _ = await self._loop.create_connection(lambda: self, sock=ours)
        try:
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
        for line in lines:
            message = orjson.loads(line)
            if message["type"] == "ready":
                if not self._ready.done():
                    self._ready.set_result(None)
            else:
                self._on_message(self, message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._burial = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        assert self._process is not None and self._stderr is not None
        self._process.kill()
        code = await asyncio.to_thread(self._process.wait)
        self._stderr.seek(0, 2)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_TAIL))
        self.last_words = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        self._dead.set_result(code)
        if not self._ready.done():
            self._ready.set_exception(Unavailable(why_it_did_not_start(code, self.last_words)))
            self._ready.exception()  # noted, in case nobody waits any more
        self._on_death(self)

    last_words = ""

    @property
    def exit_code(self) -> int | None:
        """Answer the exit code (minus the signal), or None while it lives."""
        return self._dead.result() if self._dead.done() else None

    def kill(self) -> None:
        """Kill the process now; `on_death` follows."""
        self.killed = True
        if self._process is not None and not self._dead.done():
            self._process.kill()

    async def aclose(self) -> None:
        """Kill the process and return when it is confirmed dead."""
        self.kill()
        if self._transport is not None:
            self._transport.abort()
            await asyncio.shield(self._dead)


def why_it_did_not_start(code: int, words: str) -> str:
    """Word the failure of a host that died before it was ready."""
    if "ERR_MODULE_NOT_FOUND" in words or "Cannot find module" in words:
        return "The Node package isolated-vm is missing: run scripts/setup, which installs it"
    if "No native build was found" in words or "NODE_MODULE_VERSION" in words:
        return "isolated-vm does not fit this Node or this machine: run scripts/setup again"
    lines = [line for line in words.splitlines() if line.strip()]
    said = json.dumps(lines[-1]) if lines else "nothing"
    return f"The V8 host ended with code {code} before it was ready and said {said}: run scripts/setup again"
