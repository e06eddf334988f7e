"""Many streams over one, for a program that has only its stdin and stdout between it and its worker.

A frame is a kind, a stream's number, a length, and that many bytes:
    OPEN    a new stream, as somebody has connected where the frame comes from
    DATA    at most what the other side has room for
    ROOM    so many bytes more may be sent on the stream (as in RFC 9113, 5.2)
    END     no more will be sent on the stream
    RESET   the stream is over, both ways
    HOLD    from a runner, with its clock: does its worker still have its lease? The answer brings the clock back,
            and the milliseconds that are left of the lease
Stream 0 is there from the start. Neither side believes the other: nonsense raises ValueError.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import cast

_HEAD = struct.Struct("!BII")
#: Bytes of one stream that may be under way.
WINDOW = 1 << 20
#: The most that a side may have read before it learns that there is no room: one read of a socket.
_SLACK = 1 << 19
#: Bytes that are taken before the other side is told that there is room again.
_TOLD_AT = WINDOW // 4
#: Streams at once.
MOST_STREAMS = 256


class Kind(IntEnum):
    OPEN = 1
    DATA = 2
    ROOM = 3
    END = 4
    RESET = 5
    HOLD = 6


class Trunk:
    """One side. `write` takes bytes for the other, `feed` what came of it."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        on_open: Callable[[], socket.socket | None] = lambda: None,
        on_hold: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """`on_open` gives the socket for a stream that the other side has opened, or None to refuse it."""
        self._write = write
        self._on_open = on_open
        self._on_hold = on_hold
        self._strands: dict[int, Strand] = {}
        self._next = 1
        self._partial = bytearray()
        self._joining: set[asyncio.Task[None]] = set()

    def join(self, end: socket.socket) -> None:
        """Make a connected socket this side of stream 0."""
        self._join(0, end)

    def dial(self) -> Strand:
        """Make a new stream for a connection that somebody makes to us: a protocol for `create_server`."""
        number, self._next = self._next, self._next + 1
        self._strands[number] = strand = Strand(self, number)
        self.send(Kind.OPEN, number)
        return strand

    def send(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        self._write(_HEAD.pack(kind, number, len(payload)) + payload)

    def feed(self, data: bytes) -> None:
        """Take what came; raises ValueError for nonsense."""
        self._partial += data
        at = 0
        while len(self._partial) - at >= _HEAD.size:
            kind, number, length = _HEAD.unpack_from(self._partial, at)
            if length > WINDOW:
                raise ValueError(f"a frame of {length:,} bytes")
            end = at + _HEAD.size + length
            if len(self._partial) < end:
                break
            self._take(Kind(kind), number, bytes(self._partial[at + _HEAD.size : end]))
            at = end
        del self._partial[:at]

    def close(self) -> None:
        """Hang up on every stream's socket."""
        for task in self._joining:
            task.cancel()
        for strand in list(self._strands.values()):
            strand.hang_up()

    def forget(self, number: int) -> None:
        self._strands.pop(number, None)

    def _take(self, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.HOLD:
            self._on_hold(payload)
        elif kind is Kind.OPEN:
            self._open(number)
        elif (strand := self._strands.get(number)) is not None:  # else it is over here, and that is on its way
            strand.take(kind, payload)

    def _open(self, number: int) -> None:
        if number in self._strands:
            raise ValueError(f"stream {number} is opened twice")
        end = self._on_open() if len(self._strands) < MOST_STREAMS else None
        if end is None:
            self.send(Kind.RESET, number)
        else:
            self._join(number, end)

    def _join(self, number: int, end: socket.socket) -> None:
        self._strands[number] = strand = Strand(self, number)
        end.setblocking(False)
        task = asyncio.get_running_loop().create_task(_connected(strand, end))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)


async def _connected(strand: Strand, end: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().create_connection(lambda: strand, sock=end)
    except BaseException:
        end.close()
        raise


class Strand(asyncio.Protocol):
    """One stream: what its socket says goes over the trunk, and the other way round."""

    def __init__(self, trunk: Trunk, number: int) -> None:
        self._trunk = trunk
        self._number = number
        self._transport: asyncio.Transport | None = None
        #: Bytes that may be sent, and those that may still come.
        self._room = self._expected = WINDOW
        #: Taken, and not yet told.
        self._owed = 0
        self._is_full = False
        self._is_over = False
        self._early: list[bytes] = []
        self._ended_early = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        if self._is_over:
            self._transport.abort()
            return
        for data in self._early:
            self._pass_on(data)
        self._early.clear()
        if self._ended_early:
            self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), WINDOW):
            self._trunk.send(Kind.DATA, self._number, data[start : start + WINDOW])
        self._room -= len(data)
        if self._room <= 0 and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._trunk.send(Kind.END, self._number)
        return True  # the other side may go on

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._trunk.send(Kind.RESET, self._number)
        self._trunk.forget(self._number)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._tell_room()

    def take(self, kind: Kind, payload: bytes) -> None:
        """Do what the other side says; raises ValueError for nonsense."""
        if kind is Kind.DATA:
            self._expected -= len(payload)
            if self._expected < -_SLACK:
                raise ValueError("more than there is room for")
            if self._transport is None:
                self._early.append(payload)
            else:
                self._pass_on(payload)
        elif kind is Kind.ROOM:
            self._room = min(self._room + int.from_bytes(payload, "big"), WINDOW)
            if self._room > 0 and self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        elif kind is Kind.END:
            if self._transport is None:
                self._ended_early = True
            elif not self._transport.is_closing():
                self._transport.write_eof()
        else:
            self.hang_up()

    def hang_up(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.close()  # what came before is still passed on
        else:
            self._trunk.forget(self._number)

    def _pass_on(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        self._owed += len(data)
        if not self._is_full:
            self._tell_room()

    def _tell_room(self) -> None:
        if self._owed >= _TOLD_AT and not self._is_over:
            self._expected += self._owed
            self._trunk.send(Kind.ROOM, self._number, self._owed.to_bytes(8, "big"))
            self._owed = 0
