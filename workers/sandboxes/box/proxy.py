"""A box's only way out: an HTTP proxy in the worker's event loop, on a socket that belongs to the box's network.

It takes CONNECT and plain `http://` requests (RFC 9110, 9.3.6; RFC 9112, 3.2), resolves names itself, checks every
address that a name has, and connects to a checked one: a name that answers differently the second time gains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from workers.nodes.guarded import is_public
from workers.sandboxes.box.egress import Egress
from workers.tenure import Begin, without_end

_LONGEST_HEAD = 16 * 1024
_CHUNK = 65536
#: Seconds to send a request's head, and to reach a host.
_PATIENCE = 10.0
#: An IPv6 address without its brackets, as httpcore writes it.
_BARE_IPV6 = re.compile(r"^(http://|)([0-9a-fA-F.]*:[0-9a-fA-F:.]*):(\d{1,5})(?=/|$)")
#: Of one connection, not of the next: RFC 9110, 7.6.1.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"})

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the proxy does to the world; a test gives its own."""

    resolve: Callable[[str, int], Awaitable[list[str]]] = _resolve
    is_allowed: Callable[[str], bool] = is_public
    connect: Callable[[str, int], Awaitable[Streams]] = asyncio.open_connection
    #: Asked when a proxy opens. A box lives on while its worker is frozen: what it asked for in the meantime must not
    #: be sent by a worker that others have taken for dead, nor once that worker has a lease again.
    begin: Begin = without_end

    @classmethod
    def outside(cls, begin: Begin = without_end, *, allow_private: bool) -> Network:
        """Give the real world; private addresses of it only where the operator allows them."""
        return cls(is_allowed=(lambda _: True) if allow_private else is_public, begin=begin)


class _Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Request:
    host: str
    port: int
    #: What to send on; empty for CONNECT, which is answered instead.
    head: bytes


class Proxy:
    """The proxy of one box, for as long as the box lives."""

    def __init__(self, egress: Egress, network: Network | None = None) -> None:
        self._egress = egress
        self._network = network or Network()
        self._holds = self._network.begin()
        self._connections: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self._bytes_left = egress.max_bytes
        #: Nothing goes out any more.
        self.is_shut = False

    def serve(self, listener: socket.socket) -> None:
        """Take connections from now on."""
        listener.setblocking(False)
        self._listening = asyncio.get_running_loop().create_task(self._listen(listener))

    def take(self, client: socket.socket) -> None:
        """Serve one connection."""
        if self.is_shut:
            client.close()
            return
        # Decided here, in the order of arrival: later, those who came first would count themselves out.
        room = len(self._connections) < self._egress.max_connections
        task = asyncio.get_running_loop().create_task(self._serve(client, room=room))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def shut(self) -> None:
        """End every connection, and take no more; what has not been sent by now never is."""
        self.is_shut = True
        for task in self._connections:
            task.cancel()

    async def aclose(self) -> None:
        """End every connection, and return when they are over."""
        self.shut()
        if self._listening is not None:
            self._listening.cancel()
        tasks = [*self._connections, *([self._listening] if self._listening else [])]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                client, _ = await loop.sock_accept(listener)
                self.take(client)

    async def _serve(self, client: socket.socket, *, room: bool) -> None:
        reader, writer = await asyncio.open_connection(sock=client, limit=_LONGEST_HEAD)
        try:
            if not room:
                raise _Refusal(503, f"more than {self._egress.max_connections} connections at once")
            async with asyncio.timeout(_PATIENCE):
                request = _read_request(await _read_head(reader))
                upstream = await self._reach(request)
            try:
                self._check_lease()  # reaching the host has taken time
                if request.head:
                    upstream[1].write(request.head)
                else:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._relay((reader, writer), upstream)
            finally:
                upstream[1].close()
        except _Refusal as refusal:
            writer.write(_answer(refusal))
        except TimeoutError:
            writer.write(_answer(_Refusal(504, "took too long")))
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side hung up
        finally:
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()

    async def _reach(self, request: _Request) -> Streams:
        """Connect to a checked address of an allowed host."""
        host, port = request.host, request.port
        self._check_lease()
        if not self._egress.allows(host, port):
            raise _Refusal(403, self._egress.refusal(host))
        try:
            addresses = await self._network.resolve(host, port)
        except (OSError, UnicodeError):
            raise _Refusal(502, f"{host} can't be resolved") from None
        for address in addresses:
            if not self._network.is_allowed(address):
                raise _Refusal(403, f"{host} is {address}, which is not a public address")
        for address in addresses:
            with contextlib.suppress(OSError):
                return await self._network.connect(address, port)
        raise _Refusal(502, f"{host}:{port} can't be reached")

    def _check_lease(self) -> None:
        if not self._holds():
            raise _Refusal(503, "the worker's lease ran out")

    async def _relay(self, client: Streams, upstream: Streams) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._copy(client[0], upstream[1]))
            both.create_task(self._copy(upstream[0], client[1]))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Copy to the end, then say so; stop everything when the allowance, or the worker's lease, is used up."""
        try:
            while data := await source.read(_CHUNK):
                self._bytes_left -= len(data)
                if self._bytes_left < 0 or not self._holds():
                    sink.transport.abort()
                    return
                sink.write(data)
                await sink.drain()
            sink.write_eof()
        except OSError:
            sink.transport.abort()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _Refusal(431, f"the request's head is longer than {_LONGEST_HEAD:,} bytes") from None


def _read_request(head: bytes) -> _Request:
    first, *fields = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or any("\n" in line or "\r" in line for line in fields):
        raise _Refusal(400, "not an HTTP/1 request")
    method, target, version = words
    target = _BARE_IPV6.sub(r"\1[\2]:\3", target)
    try:
        if method == "CONNECT":
            parts = urlsplit(f"//{target}")
            if not parts.hostname or parts.port is None or parts.path or parts.username is not None:
                raise ValueError
            return _Request(_checked(parts.hostname), parts.port, b"")
        parts = urlsplit(target)
        if parts.scheme != "http" or not parts.hostname or parts.username is not None:
            raise ValueError
    except ValueError:
        raise _Refusal(400, "give CONNECT host:port, or a request of http://host/...") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [line for line in fields if line.partition(":")[0].strip().lower() not in _HOP_BY_HOP | {"host"}]
    lines = [f"{method} {path} {version}", f"Host: {parts.netloc}", *kept, "Connection: close", "", ""]
    return _Request(_checked(parts.hostname), parts.port or 80, "\r\n".join(lines).encode("latin-1"))


def _checked(host: str) -> str:
    """Give the name without its zone: `fe80::1%eth0` names an interface of the worker's."""
    if "%" in host or any(ord(letter) < 33 for letter in host):
        raise ValueError
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host


def _answer(refusal: _Refusal) -> bytes:
    body = f"flo: {refusal.reason}\n".encode()
    head = f"HTTP/1.1 {refusal.status} {refusal.reason[:200]}\r\nContent-Type: text/plain\r\nFlo-Refused: yes\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode("latin-1", "replace") + body
