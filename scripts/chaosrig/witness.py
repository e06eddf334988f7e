"""What the outside world saw of the runs: an HTTP server that writes down every call."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


@dataclass
class Witness:
    """Per run, every call's attempt and step, in the order of arrival."""

    calls: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    #: Calls of programs that are not Flo: the path alone.
    others: list[str] = field(default_factory=list)
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's calls for as long as it lasts."""
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                path = first.split(" ")[1]
                if (run := headers.get("flo-run")) is not None:
                    self.calls[run].append((int(headers["flo-attempt"]), int(path.rsplit("/", 1)[1])))
                else:
                    self.others.append(path)
                writer.write(_ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def open_witness() -> AsyncIterator[Witness]:
    """Listen on a free port of this machine."""
    witness = Witness()
    server = await asyncio.start_server(witness.answer, "127.0.0.1", 0)
    witness.port = server.sockets[0].getsockname()[1]
    try:
        yield witness
    finally:
        server.close()
