"""Programs that want onto the network: past the proxy, or through it to where it does not lead."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.hostile.box.attacks import CALL
from tests.integration.box.boxes import Heard, ignore_output, python, shell
from workers.sandboxes.box.base import Exited, Returned
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.egress import NO_EGRESS, PUBLIC_EGRESS, Egress
from workers.sandboxes.box.proxy import Network, Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def value_of(box: NamespaceBox, source: str, *, egress: Egress = NO_EGRESS, **inputs: Any) -> Any:
    found = await box.run_python(python(CALL + source, inputs=inputs, egress=egress), ignore_output)
    assert isinstance(found, Returned), found
    return found.value


SOCKETS = {
    "raw IPv4": "socket.AF_INET, socket.SOCK_RAW, 1",
    "raw IPv6": "socket.AF_INET6, socket.SOCK_RAW, 58",
    "packets": "socket.AF_PACKET, socket.SOCK_RAW, 0",
    "packets without headers": "socket.AF_PACKET, socket.SOCK_DGRAM, 0",
    "netlink": "socket.AF_NETLINK, socket.SOCK_RAW, 0",
    "netfilter": "socket.AF_NETLINK, socket.SOCK_DGRAM, 12",
    "vsock": "socket.AF_VSOCK, socket.SOCK_STREAM, 0",
    "the kernel's crypto": "socket.AF_ALG, socket.SOCK_SEQPACKET, 0",
    "bluetooth": "31, socket.SOCK_RAW, 1",
    "controller area network": "29, socket.SOCK_RAW, 1",
    "XDP": "44, socket.SOCK_RAW, 0",
    "SCTP": "socket.AF_INET, socket.SOCK_STREAM, 132",
    "multipath TCP": "socket.AF_INET, socket.SOCK_STREAM, 262",
    "ping": "socket.AF_INET, socket.SOCK_DGRAM, 1",
    "RDS": "21, socket.SOCK_SEQPACKET, 0",
    "TIPC": "30, socket.SOCK_STREAM, 0",
}


@pytest.mark.parametrize("name", SOCKETS)
async def test_a_socket_of_an_odd_kind_is_refused(box: NamespaceBox, name: str) -> None:
    found = await value_of(box, f"import socket\ndef main(): return attempt(socket.socket, {SOCKETS[name]})")
    assert found in {"EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT"}


async def test_socketpairs_are_of_this_machine_only(box: NamespaceBox) -> None:
    source = "import socket\ndef main(): return [attempt(socket.socketpair, f) for f in (socket.AF_INET, 30)]"
    assert await value_of(box, source) == ["EAFNOSUPPORT", "EAFNOSUPPORT"]


DIRECT = [
    "127.0.0.1",
    "169.254.169.254",
    "10.0.0.1",
    "192.168.0.1",
    "172.17.0.1",
    "1.1.1.1",
    "0.0.0.0",
    "255.255.255.255",
]


@pytest.mark.parametrize("address", DIRECT)
@pytest.mark.parametrize("egress", [NO_EGRESS, PUBLIC_EGRESS], ids=["without egress", "past the proxy"])
async def test_no_address_is_reached_directly(box: NamespaceBox, address: str, egress: Egress) -> None:
    async with listening() as (port, taken):
        source = (
            "import socket\ndef main(address, port):\n    s = socket.socket(); s.settimeout(2)\n"
            "    u = socket.socket(type=socket.SOCK_DGRAM)\n"
            "    return [attempt(s.connect, (address, port)), attempt(u.sendto, b'x', (address, 53))]"
        )
        found = await value_of(box, source, egress=egress, address=address, port=port)
        assert not found[0].startswith("DONE")
        assert taken == []


async def test_IPv6_is_not_reached_directly(box: NamespaceBox) -> None:
    source = (
        "import socket\ndef main():\n    r = []\n    for a in ('::1', 'fd00::1', 'fe80::1', '2606:4700::1111', '::ffff:127.0.0.1'):\n"
        "        s = socket.socket(socket.AF_INET6); s.settimeout(2); r.append(attempt(s.connect, (a, 22)))\n    return r"
    )
    assert not [answer for answer in await value_of(box, source) if answer.startswith("DONE")]


async def test_names_are_not_resolved_inside(box: NamespaceBox) -> None:
    source = (
        "import socket\ndef main():\n    try: return socket.getaddrinfo('example.com', 80)\n"
        "    except socket.gaierror: return 'no'"
    )
    assert await value_of(box, source, egress=PUBLIC_EGRESS) == "no"


async def test_the_only_interface_is_loopback(box: NamespaceBox) -> None:
    source = "def main(): return [l.split(':')[0].strip() for l in open('/proc/self/net/dev').readlines()[2:]]"
    assert await value_of(box, source) == ["lo"]


ASK = """
import socket
def main(request):
    with socket.create_connection(("127.0.0.1", 3128), timeout=10) as s:
        s.sendall(request.encode())
        return s.recv(4096).decode().split("\\r\\n")[0]
"""

#: Where the proxy must not lead, however it is written.
PRIVATE = [
    "127.0.0.1", "127.1", "0.0.0.0", "0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "localhost.", "[::1]", "[::]", "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::]",
    "[fd00:ec2::254]", "[fe80::1]", "[ff02::1]", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192",
    "168.63.129.16", "[2001:0:7f00:1::]", "198.18.0.1", "192.0.2.1",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
async def test_the_proxy_leads_to_no_private_address(sandbox: NamespaceBox, host: str) -> None:
    for request in (f"CONNECT {host}:80 HTTP/1.1\r\n\r\n", f"GET http://{host}/latest/meta-data/ HTTP/1.1\r\n\r\n"):
        found = await value_of(sandbox, ASK, egress=PUBLIC_EGRESS, request=request)
        assert found.split()[1] in {"403", "400", "502"}


async def test_a_name_is_refused_if_any_of_its_addresses_is_private(sandbox: NamespaceBox) -> None:
    with network(sandbox, Network(resolve=answers(["93.184.216.34", "10.0.0.1"]), connect=unreachable)):
        found = await value_of(sandbox, ASK, egress=PUBLIC_EGRESS, request="CONNECT mixed.example:80 HTTP/1.1\r\n\r\n")
    assert "403" in found


async def test_a_name_that_changes_its_address_is_connected_where_it_was_checked(sandbox: NamespaceBox) -> None:
    asked: list[str] = []
    connected: list[str] = []

    async def rebind(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    async def connect(address: str, port: int) -> Any:
        connected.append(address)
        raise OSError

    with network(sandbox, Network(resolve=rebind, connect=connect)):
        await value_of(sandbox, ASK, egress=PUBLIC_EGRESS, request="CONNECT rebind.example:80 HTTP/1.1\r\n\r\n")
    assert asked == ["rebind.example"]
    assert connected == ["93.184.216.34"]


HOSTS = Egress(reach="hosts", hosts=("api.example.com:443", "*.cdn.example.com", "plain.example.com"))


@pytest.mark.parametrize(("host", "reached"), [
    ("api.example.com:443", True), ("API.EXAMPLE.COM:443", True), ("api.example.com.:443", True),
    ("api.example.com:80", False), ("a.cdn.example.com:1", True), ("cdn.example.com:443", False),
    ("evilcdn.example.com:443", False), ("api.example.com.evil.com:443", False), ("plain.example.com:80", True),
    ("other.com:443", False), ("93.184.216.34:443", False), ("api.example.com@other.com:443", False),
])  # fmt: skip
async def test_an_allow_list_lets_through_what_is_on_it(sandbox: NamespaceBox, host: str, reached: bool) -> None:
    with network(sandbox, Network(resolve=answers(["93.184.216.34"]), connect=unreachable)):
        found = await value_of(sandbox, ASK, egress=HOSTS, request=f"CONNECT {host} HTTP/1.1\r\n\r\n")
    # An allowed host gets as far as the connection, which the test's network refuses.
    assert ("502" in found) is reached


NONSENSE = [
    "GET / HTTP/1.1\r\n\r\n", "CONNECT HTTP/1.1\r\n\r\n", "CONNECT a HTTP/1.1\r\n\r\n", "CONNECT a:b HTTP/1.1\r\n\r\n",
    "CONNECT a:99999 HTTP/1.1\r\n\r\n", "GET ftp://a/ HTTP/1.1\r\n\r\n", "GET file:///etc/passwd HTTP/1.1\r\n\r\n",
    "\0\0\0\r\n\r\n", "CONNECT [fe80::1%eth0]:80 HTTP/1.1\r\n\r\n", "GET http://a b/ HTTP/1.1\r\n\r\n",
    "GET http://u:p@a/ HTTP/1.1\r\n\r\n", "\x05\x01\x00\r\n\r\n", "GET http:// HTTP/1.1\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("request_text", NONSENSE)
async def test_nonsense_is_answered_as_that(sandbox: NamespaceBox, request_text: str) -> None:
    found = await value_of(sandbox, ASK, egress=PUBLIC_EGRESS, request=request_text)
    assert found.startswith("HTTP/1.1 400")


async def test_an_endless_head_is_cut(sandbox: NamespaceBox) -> None:
    found = await value_of(sandbox, ASK, egress=PUBLIC_EGRESS, request="GET http://a/ HTTP/1.1\r\n" + "a: b\r\n" * 5000)
    assert "431" in found


async def test_connections_at_once_are_limited(sandbox: NamespaceBox) -> None:
    source = (
        "import socket\ndef main():\n    held = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(5)]\n"
        "    held[-1].sendall(b'CONNECT a:1 HTTP/1.1\\r\\n\\r\\n')\n    return held[-1].recv(100).decode().split()[1]"
    )
    egress = Egress(reach="public", max_connections=4)
    assert await value_of(sandbox, source, egress=egress) == "503"


async def test_an_allowed_host_is_reached_through_the_proxy_and_its_bytes_are_counted(sandbox: NamespaceBox) -> None:
    async with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as (port, taken):
        site = Network(
            resolve=answers(["93.184.216.34"]), connect=lambda _a, _p: asyncio.open_connection("127.0.0.1", port)
        )
        with network(sandbox, site):
            source = "import urllib.request\ndef main(): return urllib.request.urlopen('http://site.example/a?b=1', timeout=10).read().decode()"
            assert await value_of(sandbox, source, egress=PUBLIC_EGRESS) == "hello"
            assert taken[0].startswith(b"GET /a?b=1 HTTP/1.1\r\nHost: site.example\r\n")
            assert b"proxy" not in taken[0].lower()
            short = "import urllib.request\ndef main():\n    try: return len(urllib.request.urlopen('http://site.example/', timeout=10).read())\n    except Exception as e: return 'cut'"
            assert await value_of(sandbox, short, egress=Egress(reach="public", max_bytes=20)) == "cut"


async def test_a_box_can_not_use_the_proxy_of_another(sandbox: NamespaceBox) -> None:
    heard = Heard()
    first = asyncio.create_task(sandbox.run(shell("echo up; sleep 60", egress=PUBLIC_EGRESS), heard))
    await heard.first
    source = "import socket\ndef main(): return attempt(socket.create_connection, ('127.0.0.1', 3128), 2)"
    assert not (await value_of(sandbox, source)).startswith("DONE")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_command_finds_the_proxy_in_its_environment(box: NamespaceBox) -> None:
    found = await box.run(
        shell("echo $HTTPS_PROXY $https_proxy $HTTP_PROXY $http_proxy", egress=PUBLIC_EGRESS), ignore_output
    )
    assert isinstance(found, Exited)
    assert set(found.stdout.split()) == {b"http://127.0.0.1:3128"}


def answers(addresses: list[str]) -> Callable[[str, int], Any]:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    return resolve


async def unreachable(address: str, port: int) -> Any:
    raise OSError


class network:
    """Give the sandbox's proxies another network for a while."""

    def __init__(self, box: NamespaceBox, given: Network) -> None:
        self.box, self.given = box, given

    def __enter__(self) -> None:
        self.before = self.box.open_proxy
        self.box.open_proxy = lambda egress: Proxy(egress, self.given)

    def __exit__(self, *_: object) -> None:
        self.box.open_proxy = self.before


@asynccontextmanager
async def listening(answer: bytes = b"") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A service on the host's loopback that notes what it is sent."""
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], taken
