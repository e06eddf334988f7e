"""A box lives on while its worker is frozen; what it asked for meanwhile is not sent by a worker without a lease."""

from __future__ import annotations

import asyncio
import socket
import time
from datetime import timedelta

from workers.sandboxes.box.egress import PUBLIC_EGRESS
from workers.sandboxes.box.proxy import Network, Proxy
from workers.tenure import Lease


async def test_a_request_after_the_end_of_the_lease_is_refused() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    proxy = Proxy(PUBLIC_EGRESS, Network(begin=lambda: lambda: False))
    proxy.serve(listener)

    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
    answer = await reader.read()

    writer.close()
    await proxy.aclose()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"lease ran out" in answer


async def test_a_connection_from_before_carries_nothing_after_the_end_of_the_lease() -> None:
    heard: list[bytes] = []
    lease = {"holds": True}
    first = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            heard.append(data)
            first.set()
        writer.close()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    upstream = await asyncio.start_server(hear, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    network = Network(
        resolve=resolve,
        is_allowed=lambda _: True,
        connect=lambda host, _: asyncio.open_connection(host, port),
        begin=lambda: lambda: lease["holds"],
    )
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    proxy = Proxy(PUBLIC_EGRESS, network)
    proxy.serve(listener)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"before")
    await first.wait()

    lease["holds"] = False
    writer.write(b"after")
    rest = await reader.read()

    writer.close()
    await proxy.aclose()
    upstream.close()
    assert (heard, rest) == ([b"before"], b"")


async def test_nothing_is_sent_when_the_lease_ends_while_the_host_is_being_reached() -> None:
    heard: list[bytes] = []
    lease = {"holds": True}

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def freeze_and_connect(host: str, _: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        lease["holds"] = False
        return await asyncio.open_connection(host, port)

    upstream = await asyncio.start_server(hear, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    network = Network(
        resolve=resolve, is_allowed=lambda _: True, connect=freeze_and_connect, begin=lambda: lambda: lease["holds"]
    )
    proxy = Proxy(PUBLIC_EGRESS, network)
    proxy.serve(listener)

    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
    answer = await reader.read()

    writer.close()
    await proxy.aclose()
    upstream.close()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"".join(heard) == b""


async def test_a_proxy_of_an_earlier_tenure_sends_nothing_in_the_next() -> None:
    lease = Lease(timedelta(hours=1))
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    proxy = Proxy(PUBLIC_EGRESS, Network(begin=lease.begin))
    proxy.serve(listener)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")

    lease.tenure.until = 0.0
    lease.renew(time.monotonic())
    answer = await reader.read()

    writer.close()
    await proxy.aclose()
    assert lease.tenure.holds()
    assert b"lease ran out" in answer
