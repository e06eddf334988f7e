"""Which addresses a flow may reach."""

from __future__ import annotations

from collections.abc import Iterable

import httpcore
import pytest

from workers.nodes.guarded import ForbiddenAddress, GuardedBackend, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1",
        "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
        "2002:7f00:1::", "2002:a9fe:a9fe::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "::127.0.0.1",
        "64:ff9b:1::101:101",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_out_of_reach(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_a_public_address_is_within_reach(address: str) -> None:
    assert is_public(address)


class Dialled(httpcore.AsyncNetworkBackend):
    """Connects to nothing, and remembers to what."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.hosts.append(host)
        raise httpcore.ConnectError("no one there")


class Names(GuardedBackend):
    """Resolves every name to the addresses given."""

    def __init__(self, inner: Dialled, addresses: list[str]) -> None:
        super().__init__(inner)
        self._addresses = addresses

    async def _resolve(self, host: str, port: int) -> list[str]:
        return self._addresses


async def test_a_connection_goes_to_the_address_that_was_checked_not_to_the_name() -> None:
    dialled = Dialled()

    with pytest.raises(httpcore.ConnectError):
        await Names(dialled, ["1.1.1.1", "1.0.0.1"]).connect_tcp("example.com", 443)

    assert dialled.hosts == ["1.1.1.1", "1.0.0.1"]


async def test_a_name_with_one_private_address_among_public_ones_is_refused_whole() -> None:
    dialled = Dialled()

    with pytest.raises(ForbiddenAddress):
        await Names(dialled, ["1.1.1.1", "10.0.0.1"]).connect_tcp("rebind.example.com", 80)

    assert dialled.hosts == []


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "::1", "localhost"])
async def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    with pytest.raises(ForbiddenAddress):
        await GuardedBackend(Dialled()).connect_tcp(host, 80)
