"""What an attached container says: frames of stdout and stderr, in one stream (Docker Engine API, ContainerAttach)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Self, cast

#: Which stream it is, three zeros, and the length.
_HEAD = struct.Struct("!BxxxI")
_STREAMS = {1: "stdout", 2: "stderr"}


class Attached(asyncio.Protocol):
    """One attached container. `hear` is called with a stream's name and what came of it."""

    def __init__(self, hear: Callable[[str, bytes], None]) -> None:
        self._hear = hear
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()
        self._input_ended = False
        #: Done when nothing more can come: the container has ended, or its daemon can't be heard any more.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, end: socket.socket, hear: Callable[[str, bytes], None]) -> Self:
        _, attached = await asyncio.get_running_loop().create_connection(lambda: cls(hear), sock=end)
        return attached

    def write(self, data: bytes) -> None:
        """Send to the container's stdin; once that has ended, nothing is sent."""
        if self._transport is not None and not self._transport.is_closing() and not self._input_ended:
            self._transport.write(data)

    def end_input(self) -> None:
        self._input_ended = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        self._partial += data
        at = 0
        while len(self._partial) - at >= _HEAD.size:
            number, length = _HEAD.unpack_from(self._partial, at)
            end = at + _HEAD.size + length
            if len(self._partial) < end:
                break
            if stream := _STREAMS.get(number):
                self._hear(stream, bytes(self._partial[at + _HEAD.size : end]))
            at = end
        del self._partial[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
