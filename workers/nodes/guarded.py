"""An HTTP client that can't be talked into reaching the operator's own network.

Names are resolved here, every address is checked, and the connection goes to a checked address: a name that answers
differently the second time gains nothing. As this sits below the connection pool, it holds for every redirect too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeAlias

import httpcore
import httpx

from workers.sandboxes.box.egress import Egress
from workers.tenure import Begin, without_end

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Redirects that one request may follow.
MAX_REDIRECTS = 10
#: What httpcore calls the step before a request's first byte is sent.
_SENDING = ".send_request_headers.started"
_PORTS = {"http": 80, "https": 443}
#: Connections that a worker keeps open, in all and idle.
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30)

#: Not private by the registries, and still not the public internet's.
_BLOCKED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata server (192.0.0.192)
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # Azure's host
        "64:ff9b:1::/48",  # translation to IPv4 within one operator's network
    )
)
#: IPv6 addresses whose last 32 bits are an IPv4 address that a gateway connects to (NAT64).
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddress(Exception):
    """A host that flows may not reach; the message says why."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(why)
        self.host = host


def is_public(text: str) -> bool:
    """Tell whether an address belongs to the public internet: not private, loopback, link-local (where cloud metadata
    lives), multicast or reserved, also when an IPv6 address only wraps such an IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    inner = _wrapped(address)
    if inner is not None:
        return is_public(str(inner))
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
        and not any(address in network for network in _BLOCKED if network.version == address.version)
    )


def _wrapped(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        for address in addresses:
            if not is_public(address):
                raise ForbiddenAddress(host, f"{host} is {address}, which is not a public address")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def _resolve(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} can't be resolved: {error}") from error
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise ForbiddenAddress(path, f"{path} is a unix socket")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own transport on a pool with another network backend, for which httpx has no argument."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=LIMITS.max_connections,
            max_keepalive_connections=LIMITS.max_keepalive_connections,
            keepalive_expiry=LIMITS.keepalive_expiry,
            network_backend=backend,
        )


def open_client(
    *,
    allow_private_network: bool,
    backend: httpcore.AsyncNetworkBackend | None = None,
    begin: Begin = without_end,
) -> httpx.AsyncClient:
    """Open the HTTP client that all runs of a worker share: it keeps no cookies, and ignores proxy variables.

    A request is sent only if the worker's tenure in which it was made goes on (`begin`). `backend` is what connects
    beneath the guard; a test may pass its own.
    """
    inner = backend or httpcore.AnyIOBackend()
    return httpx.AsyncClient(
        transport=_Transport(inner if allow_private_network else GuardedBackend(inner)),
        timeout=None,  # each node holds itself to its own limit, from connecting to the last byte
        max_redirects=MAX_REDIRECTS,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"user-agent": "flo"},
        event_hooks={"request": [_keep_to_policy, partial(_keep_to_tenure, begin)]},
    )


async def _keep_to_tenure(begin: Begin, request: httpx.Request) -> None:
    """Look once more when the connection is there: to have it may take longer than the worker's lease."""
    holds = begin()

    async def look(moment: str, _: Mapping[str, Any]) -> None:
        if moment.endswith(_SENDING) and not holds():
            raise httpx.ConnectError("the worker's lease ran out", request=request)

    # httpcore calls it at each step of a request; a redirect brings that of the first request along.
    request.extensions.setdefault("trace", look)


async def _keep_to_policy(request: httpx.Request) -> None:
    """Hold a request, and each redirect that follows from it, to the egress policy that it was made with."""
    policy = request.extensions.get("egress")
    url = request.url
    if isinstance(policy, Egress) and not policy.allows(url.host, url.port or _PORTS.get(url.scheme, 0)):
        raise ForbiddenAddress(url.host, policy.refusal(url.host))
