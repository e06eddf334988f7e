"""How an operator writes down where flows may connect to."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

#: Nowhere, any public address, or these hosts: `host`, `host:port`, `*.domain`, `*.domain:port`.
Reach: TypeAlias = Literal["none", "public"] | tuple[str, ...]

_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:\d{1,5})?", re.IGNORECASE)


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Raise ValueError for what is not a host."""
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not a host: give host, host:port, *.domain or *.domain:port")
    return hosts


def read_reach(text: str) -> Reach:
    """Read `none`, `public`, or hosts with commas between them; raise ValueError for anything else."""
    match text.strip():
        case "none":
            return "none"
        case "public":
            return "public"
        case hosts:
            return check_hosts(tuple(host.strip() for host in hosts.split(",") if host.strip()))
