"""Many streams over one: both sides in this process, each with a plain socket at its end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from workers.runner.trunk import MOST_STREAMS, WINDOW, Kind, Trunk


@dataclass
class Both:
    """A trunk from a container to its worker, and what the worker's side has been connected to."""

    inside: Trunk
    outside: Trunk
    accepted: asyncio.Queue[socket.socket]
    sent: list[int]


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    accepted: asyncio.Queue[socket.socket] = asyncio.Queue()
    sent: list[int] = []

    def accept() -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        accepted.put_nowait(theirs)
        return ours

    def to_outside(data: bytes) -> None:
        sent.append(len(data))
        outside.feed(data)

    inside = Trunk(to_outside)
    outside = Trunk(inside.feed, on_open=accept)
    yield Both(inside, outside, accepted, sent)
    inside.close()
    outside.close()
    await asyncio.sleep(0)
    while not accepted.empty():
        accepted.get_nowait().close()


async def dialled(both: Both) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the container's side, as a program in there does."""
    server = await asyncio.get_running_loop().create_server(both.inside.dial, "127.0.0.1", 0)
    async with server:
        return await asyncio.open_connection(*server.sockets[0].getsockname())


async def test_what_is_said_at_one_end_comes_out_at_the_other(both: Both) -> None:
    reader, writer = await dialled(both)
    far_reader, far_writer = await asyncio.open_connection(sock=await both.accepted.get())

    writer.write(b"question")
    far_writer.write(b"answer")

    assert await far_reader.readexactly(8) == b"question"
    assert await reader.readexactly(6) == b"answer"
    writer.close()
    far_writer.close()


async def test_the_end_of_one_direction_leaves_the_other_open(both: Both) -> None:
    reader, writer = await dialled(both)
    far_reader, far_writer = await asyncio.open_connection(sock=await both.accepted.get())

    writer.write_eof()
    assert await far_reader.read() == b""
    far_writer.write(b"still here")
    far_writer.close()

    assert await reader.read() == b"still here"
    writer.close()


async def test_much_comes_whole_and_in_order(both: Both) -> None:
    _, writer = await dialled(both)
    far_reader, far_writer = await asyncio.open_connection(sock=await both.accepted.get())
    much = bytes(range(256)) * (4 * WINDOW // 256)

    async def send() -> None:
        writer.write(much)
        await writer.drain()
        writer.write_eof()

    _, heard = await asyncio.gather(send(), far_reader.read())

    assert heard == much
    writer.close()
    far_writer.close()


async def test_nobody_is_sent_more_than_there_is_room_for(both: Both) -> None:
    _, writer = await dialled(both)
    unread = await both.accepted.get()

    writer.write(b"x" * (16 * WINDOW))
    while True:  # until nothing more is taken
        before = sum(both.sent)
        await asyncio.sleep(0.05)
        if sum(both.sent) == before:
            break

    assert sum(both.sent) < 4 * WINDOW
    unread.close()
    writer.transport.abort()


async def test_streams_beyond_the_most_are_hung_up_on(both: Both) -> None:
    kept = [await dialled(both) for _ in range(MOST_STREAMS)]

    reader, writer = await dialled(both)

    assert await reader.read() == b""
    for _, each in kept:
        each.transport.abort()
    writer.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        struct.pack("!BII", 77, 0, 0),
        struct.pack("!BII", Kind.DATA, 0, WINDOW + 1),
        struct.pack("!BII", Kind.OPEN, 5, 0) * 2,
    ],
    ids=["no such kind", "a frame beyond the window", "opened twice"],
)
async def test_nonsense_is_told_from_sense(both: Both, nonsense: bytes) -> None:
    with pytest.raises(ValueError):
        both.outside.feed(nonsense)


async def test_whoever_sends_beyond_its_room_is_mad(both: Both) -> None:
    end, other = socket.socketpair()
    both.outside.join(end)
    data = struct.pack("!BII", Kind.DATA, 0, WINDOW) + b"x" * WINDOW

    with pytest.raises(ValueError, match="room"):
        both.outside.feed(data * 3)
    other.close()
