"""A worker's own requests: nothing is sent by what has begun in a tenure that is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

import httpcore
import httpx
import pytest

from workers.nodes.guarded import open_client
from workers.tenure import Lease


class FrozenWhileConnecting(httpcore.AsyncNetworkBackend):
    """Connects, but its worker has lost its lease by then, and has it again."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        self._lease.tenure.until = 0.0
        self._lease.renew(time.monotonic())
        return stream


class Site:
    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.heard.append(line)
            if line == b"\r\n":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()


async def test_a_request_whose_worker_lost_its_lease_while_connecting_is_never_sent(site: Site) -> None:
    lease = Lease(timedelta(hours=1))
    backend = FrozenWhileConnecting(lease)
    async with open_client(allow_private_network=True, backend=backend, begin=lease.begin) as client:
        with pytest.raises(httpx.ConnectError, match="lease ran out"):
            await client.get(f"http://127.0.0.1:{site.port}/")

    assert lease.tenure.holds()
    assert site.heard == []


async def test_a_request_of_the_next_tenure_is_sent(site: Site) -> None:
    lease = Lease(timedelta(hours=1))
    lease.tenure.until = 0.0
    lease.renew(time.monotonic())
    async with open_client(allow_private_network=True, begin=lease.begin) as client:
        answer = await client.get(f"http://127.0.0.1:{site.port}/")

    assert answer.text == "ok"
