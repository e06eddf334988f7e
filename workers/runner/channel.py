"""Two ends of a socket that say JSON objects to each other, one to a line. `wire.py` has the words."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Self, cast

from schemas.json import JSONObject, loads, to_bytes

#: Longest line that is read, in bytes; whoever says more is taken to be mad, and hung up on.
LONGEST_LINE = 256 * 1024 * 1024


class Channel(asyncio.Protocol):
    """One end. `hear` is called for every message; if it raises, the other end is mad, and is hung up on.

    `lost` is called once: with True after that, with False when the other end is gone.
    """

    def __init__(self, *, hear: Callable[[JSONObject], None], lost: Callable[[bool], None]) -> None:
        self._hear = hear
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._partial: list[bytes] = []
        self._size = 0
        self._outgoing: list[bytes] = []
        self._mad = False
        #: The other end went before it had read all that was said to it.
        self.is_unread = False

    @classmethod
    async def open(
        cls, end: socket.socket, *, hear: Callable[[JSONObject], None], lost: Callable[[bool], None]
    ) -> Self:
        """Speak over a connected stream socket, which belongs to the channel from now on."""
        _, channel = await asyncio.get_running_loop().create_connection(lambda: cls(hear=hear, lost=lost), sock=end)
        return channel

    def say(self, message: JSONObject) -> None:
        """Send a message; all that is said in one turn of the loop goes with one write."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(line_of(message))

    def close(self) -> None:
        """Send what was said, then hang up; `lost` follows."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        if lines and self._partial:
            lines[0] = b"".join([*self._partial, lines[0]])
            self._partial.clear()
            self._size = 0
        if rest:
            self._partial.append(rest)
            self._size += len(rest)
        try:
            for line in lines:
                self._hear(_object(line))
        except (ValueError, LookupError, TypeError, AttributeError):
            self.abort()
        if self._size > LONGEST_LINE:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        # A stream socket of Linux is reset, and not just ended, by an end that is closed with something in it.
        self.is_unread = bool(self._outgoing) or isinstance(exc, ConnectionResetError | BrokenPipeError)
        self._lost(self._mad)

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None and not self._transport.is_closing():
            self._outgoing.append(b"")
            self._transport.write(b"\n".join(self._outgoing))
        self._outgoing.clear()

    def abort(self) -> None:
        """Hang up on the other end: it is mad."""
        self._mad = True
        if self._transport is not None:
            self._transport.abort()


def line_of(message: JSONObject) -> bytes:
    """Write a message as one line, without its end."""
    return to_bytes(message)


def _object(line: bytes) -> dict[str, Any]:
    said = loads(line)
    if not isinstance(said, dict):
        raise TypeError("not an object")
    return said
