"""The engine as a container's program: `boxed.py` with stdin and stdout in place of a socket.

They carry a trunk (`trunk.py`): stream 0 is the worker's channel, the others are connections to the worker's proxy,
the only way out of a container without a network. A container that its worker no longer holds ends itself: the worker
may be dead, frozen, or behind a cable that is cut, and somebody else may have its runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

from workers.runner.boxed import serve_engine
from workers.runner.commands import serve_commands
from workers.runner.trunk import Kind, Trunk
from workers.sandboxes.box.inside import kernel
from workers.sandboxes.box.inside.room import PROXY_PORT

#: What the runner's clock, and the worker's answer to it, look like.
ASKED, ANSWERED = struct.Struct("!d"), struct.Struct("!dI")
#: Seconds between two questions whether the worker still holds this container.
ASK_EVERY = 1.0
#: Seconds for which a container waits for the first answer.
FIRST_PATIENCE = 30.0
#: Exit code of a container that its worker does not hold any more (sysexits.h, EX_TEMPFAIL).
NOT_HELD = 75

Serve = Callable[[socket.socket, Mapping[str, Any]], Awaitable[None]]
#: What a container can be, by the word that it is started with.
_ROLES: Mapping[str, Serve] = {"engine": serve_engine, "commands": serve_commands}


def main() -> None:
    """Be the program of a container; `sys.argv[1]` is JSON: `role`, and what that is given."""
    # Code of the run may be another process of the same user: it must neither read nor write this one (ptrace(2)).
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    given = json.loads(sys.argv[1])
    reading, writing = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever prints must not speak for us
    uvloop.run(_serve(reading, writing, given))
    sys.exit(1)


async def _serve(reading: int, writing: int, given: Mapping[str, Any]) -> None:
    gone = asyncio.Event()
    held = _Held(gone)
    trunk = Trunk((await _outlet(writing)).write, on_hold=held.hear)
    await asyncio.get_running_loop().connect_read_pipe(lambda: _Inlet(trunk, gone), os.fdopen(reading, "rb", 0))
    near, far = socket.socketpair()
    trunk.join(near)
    if given["inside"].get("proxy"):
        await asyncio.get_running_loop().create_server(trunk.dial, "127.0.0.1", PROXY_PORT)
    asking = asyncio.create_task(held.ask(trunk))
    serving = asyncio.ensure_future(_ROLES[given["role"]](far, given["inside"]))
    leaving = asyncio.create_task(gone.wait())
    await asyncio.wait([asking, serving, leaving], return_when=asyncio.FIRST_COMPLETED)
    if serving.done() and (trouble := serving.exception()) is not None:
        raise trouble
    # At once, without tidying up: pid 1 ends with us, and the kernel ends everything else in here.
    os._exit(NOT_HELD)


class _Held:
    """Asks the worker whether it still has its lease, and tells when it has not said so for too long."""

    def __init__(self, gone: asyncio.Event) -> None:
        self._gone = gone
        self._until = time.monotonic() + FIRST_PATIENCE

    async def ask(self, trunk: Trunk) -> None:
        """Return when nobody holds us any more."""
        while (now := time.monotonic()) < self._until:
            trunk.send(Kind.HOLD, 0, ASKED.pack(now))
            await asyncio.sleep(min(ASK_EVERY, self._until - now))

    def hear(self, answer: bytes) -> None:
        """Take an answer. It counts from when it was asked for, so that one that was long on its way is worth less."""
        asked_at, left_ms = ANSWERED.unpack(answer)
        self._until = asked_at + left_ms / 1000


class _Inlet(asyncio.Protocol):
    """What comes from the worker."""

    def __init__(self, trunk: Trunk, gone: asyncio.Event) -> None:
        self._trunk = trunk
        self._gone = gone

    def data_received(self, data: bytes) -> None:
        self._trunk.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()


async def _outlet(writing: int) -> asyncio.WriteTransport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb", 0))
    return transport
