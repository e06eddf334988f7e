"""A TCP proxy that can fall silent: it accepts what is sent, passes nothing on, and closes nothing.

That is how a connection looks from one side when the other has vanished behind a failover, a firewall or a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SilentProxy:
    """Passes bytes between clients and a port of this machine, until it is hushed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        #: Connections made so far.
        self.made = 0
        self._silent: set[int] = set()
        self._all_silent = False
        self._tasks: set[asyncio.Task[None]] = set()

    def hush(self, *, also_new: bool = False) -> None:
        """Let every connection that is open fall silent for ever; `also_new` ones too, until `heal`."""
        self._silent.update(range(self.made))
        self._all_silent = also_new

    def heal(self) -> None:
        """Serve new connections again; those that fell silent stay so."""
        self._silent.update(range(self.made))
        self._all_silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.made = self.made, self.made + 1
        with contextlib.suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
            for source, sink in ((reader, there_writer), (there_reader, writer)):
                task = asyncio.create_task(self._pass_on(number, source, sink))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.close()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _pass_on(self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                if self._all_silent:
                    self._silent.add(number)
                if number not in self._silent:
                    sink.write(data)
        except OSError:
            pass
        finally:
            # The end of a silent connection is not passed on either: its other side learns nothing.
            if number not in self._silent:
                sink.close()


@asynccontextmanager
async def open_proxy(target: int, *, port: int = 0) -> AsyncIterator[SilentProxy]:
    """Listen on a port of this machine (any free one), for connections to `target`."""
    proxy = SilentProxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
