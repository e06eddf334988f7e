"""A box lives on while its worker is frozen; what it asked for meanwhile is not sent by a worker without a lease."""

from __future__ import annotations

import asyncio
import socket

from workers.sandboxes.box.egress import PUBLIC_EGRESS
from workers.sandboxes.box.proxy import Network, Proxy


async def test_a_request_after_the_end_of_the_lease_is_refused() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    proxy = Proxy(PUBLIC_EGRESS, Network(holds=lambda: False))
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
        holds=lambda: lease["holds"],
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
