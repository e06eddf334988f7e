"""A box lives on while its worker is frozen, and for a moment after its run: nothing that it asks for then is sent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from workers.sandboxes.box.egress import PUBLIC_EGRESS
from workers.sandboxes.box.proxy import Network, Proxy, Streams
from workers.tenure import Begin, Lease

_GET = b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n"
_CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"


@dataclass
class Outside:
    """Whatever host is asked for, it is this one."""

    heard: list[bytes] = field(default_factory=list)
    first: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            self.heard.append(data)
            self.first.set()
        writer.close()

    async def resolve(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def connect(self, host: str, port: int) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def network(self, begin: Begin) -> Network:
        return Network(resolve=self.resolve, is_allowed=lambda _: True, connect=self.connect, begin=begin)


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    outside = Outside()
    server = await asyncio.start_server(outside.hear, "127.0.0.1", 0)
    outside.port = server.sockets[0].getsockname()[1]
    yield outside
    server.close()


@asynccontextmanager
async def through(network: Network) -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a proxy, and a connection to it."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    proxy = Proxy(PUBLIC_EGRESS, network)
    proxy.serve(listener)
    reader, writer = await asyncio.open_connection(*address)
    yield proxy, reader, writer
    writer.close()
    await proxy.aclose()


async def test_a_request_after_the_end_of_the_lease_is_refused() -> None:
    async with through(Network(begin=lambda: lambda: False)) as (_, reader, writer):
        writer.write(_GET)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 503")
    assert b"lease ran out" in answer


async def test_a_connection_from_before_carries_nothing_after_the_end_of_the_lease(outside: Outside) -> None:
    lease = {"holds": True}
    async with through(outside.network(lambda: lambda: lease["holds"])) as (_, reader, writer):
        writer.write(_CONNECT)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"before")
        await outside.first.wait()

        lease["holds"] = False
        writer.write(b"after")
        rest = await reader.read()

    assert (outside.heard, rest) == ([b"before"], b"")


async def test_nothing_is_sent_when_the_lease_ends_while_the_host_is_being_reached(outside: Outside) -> None:
    lease = {"holds": True}

    async def freeze_and_connect(host: str, port: int) -> Streams:
        lease["holds"] = False
        return await outside.connect(host, port)

    network = Network(
        resolve=outside.resolve, is_allowed=lambda _: True, connect=freeze_and_connect,
        begin=lambda: lambda: lease["holds"],
    )  # fmt: skip
    async with through(network) as (_, reader, writer):
        writer.write(_GET)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 503")
    assert outside.heard == []


async def test_a_proxy_of_an_earlier_tenure_sends_nothing_in_the_next() -> None:
    lease = Lease(timedelta(hours=1))
    async with through(Network(begin=lease.begin)) as (_, reader, writer):
        writer.write(_GET)

        lease.tenure.until = 0.0
        lease.renew(time.monotonic())
        answer = await reader.read()

    assert lease.tenure.holds()
    assert b"lease ran out" in answer


async def test_once_it_is_shut_a_connection_from_before_carries_nothing(outside: Outside) -> None:
    async with through(outside.network(lambda: lambda: True)) as (proxy, reader, writer):
        writer.write(_CONNECT)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"before")
        await outside.first.wait()

        writer.write(b"after")
        proxy.shut()
        rest = await reader.read()

    assert (outside.heard, rest) == ([b"before"], b"")


async def test_once_it_is_shut_no_connection_is_taken(outside: Outside) -> None:
    async with through(outside.network(lambda: lambda: True)) as (proxy, _, _):
        proxy.shut()
        ours, theirs = socket.socketpair()
        with ours:
            ours.sendall(_GET)
            proxy.take(theirs)
            ours.settimeout(5)
            with pytest.raises(ConnectionResetError):  # it is closed with the request in it
                ours.recv(1)

    assert outside.heard == []
