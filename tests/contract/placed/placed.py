"""Opens a place for plain processes inside a box, and fills the orders that come over the box's socket.

Both ends are ours and belong to one test, so they speak pickles: length, then (number, what, value).
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from functools import partial
from typing import Any

from workers.sandboxes.box.plain import open_plain

LENGTH = struct.Struct("!I")


def pack(*message: Any) -> bytes:
    body = pickle.dumps(message)
    return LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> Any:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return pickle.loads(await reader.readexactly(length))


def serve(fd: int) -> None:
    asyncio.run(_serve(socket.socket(fileno=fd)))


async def _serve(end: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=end)
    place = await open_plain()
    running: dict[int, asyncio.Task[None]] = {}
    try:
        while True:
            number, what, order = await read(reader)
            if what == "cancel":
                running[number].cancel()
                continue

            async def fill(number: int = number, what: str = what, order: Any = order) -> None:
                def tell(kind: str, *value: Any) -> None:
                    writer.write(pack(number, kind, value))

                try:
                    tell("done", await getattr(place, what)(order, partial(tell, "line")))
                except asyncio.CancelledError:
                    tell("cancelled")
                except Exception as refusal:  # noqa: BLE001 - the test raises it again
                    tell("raised", refusal)

            running[number] = asyncio.create_task(fill())
    except asyncio.IncompleteReadError:
        await place.aclose()
        print("closed", flush=True)
