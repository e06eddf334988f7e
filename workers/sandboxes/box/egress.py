"""What a box may reach: nothing, the public internet, or named hosts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from schemas.reach import Reach, check_hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """Where connections may go. Addresses that are not public are out of reach under every policy."""

    reach: Literal["none", "public", "hosts"]
    #: For `hosts`: `api.example.com`, `api.example.com:443`, `*.example.com` (any name below it, not itself).
    hosts: tuple[str, ...] = ()
    #: Both ways together, over all connections of the box.
    max_bytes: int = 1 << 30
    #: At once.
    max_connections: int = 64

    def __post_init__(self) -> None:
        check_hosts(self.hosts)

    def allows(self, host: str, port: int) -> bool:
        """Tell whether the policy lets a connection go to this name; its addresses are checked later, each."""
        if self.reach != "hosts":
            return self.reach == "public"
        name = host.lower().rstrip(".")
        return any(_matches(pattern.lower(), name, port) for pattern in self.hosts)

    def refusal(self, host: str) -> str:
        """Say why a connection may not go to this name."""
        if self.reach == "none":
            return f"this app's flows may connect to nothing, so not to {host}"
        return f"{host} is not among the hosts that this app's flows may reach"


def _matches(pattern: str, name: str, port: int) -> bool:
    host, _, wanted = pattern.partition(":")
    if wanted and int(wanted) != port:
        return False
    if host.startswith("*."):
        return name.endswith(host[1:]) and name != host[2:]
    return name == host


@lru_cache(maxsize=1000)
def egress_to(reach: Reach) -> Egress:
    """Make the policy that an operator wrote down."""
    return Egress(reach="hosts", hosts=reach) if isinstance(reach, tuple) else Egress(reach=reach)


NO_EGRESS = Egress(reach="none")
PUBLIC_EGRESS = Egress(reach="public")
