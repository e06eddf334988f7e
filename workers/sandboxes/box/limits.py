"""Turn limits into the rlimits of each process (getrlimit(2)). Pure."""

from __future__ import annotations

import math
from collections.abc import Collection

from workers.sandboxes.box.base import BoxLimits

_MB = 1 << 20
#: Private memory of a program that is none of its data: stacks of threads, the loader, Python itself.
_SLACK_MB = 64
#: Commands reserve far more than they use (V8, Go, the JVM); a memory cgroup holds them to what they use.
_RESERVED_MB = 1024
_STACK_MB = 8
_LOCKED_BYTES = 64 << 10


#: What the kernel counts per user: in a user namespace of one's own that is the box.
_PER_USER = ("RLIMIT_MSGQUEUE", "RLIMIT_NPROC", "RLIMIT_SIGPENDING")


#: Above the cgroup's limit, which is met first, as it says how often: the rlimit is only the second net.
_SPARE_PIDS = 16


def rlimits(limits: BoxLimits, *, python: bool, held: Collection[str], own_user: bool = True) -> dict[str, int]:
    """Give RLIMIT name -> value, `held` being what cgroups hold; without memory the address space is limited, too."""
    slack = _SLACK_MB if python else _RESERVED_MB
    if limits.reserved_mb is not None:
        slack = limits.reserved_mb
    found = {
        "RLIMIT_CORE": 0,
        "RLIMIT_DATA": (limits.memory_mb + slack) * _MB,
        "RLIMIT_FSIZE": limits.file_size_mb * _MB,
        "RLIMIT_MEMLOCK": _LOCKED_BYTES,
        "RLIMIT_MSGQUEUE": _LOCKED_BYTES,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.pids + (_SPARE_PIDS if "pids" in held else 0),
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_SIGPENDING": 1024,
        "RLIMIT_STACK": _STACK_MB * _MB,
    }
    if not own_user:  # others would be counted in
        found = {name: value for name, value in found.items() if name not in _PER_USER}
    if "memory" not in held:
        found["RLIMIT_AS"] = (limits.memory_mb + (4 * slack if python else slack)) * _MB
    if limits.cpu_seconds is not None:
        found["RLIMIT_CPU"] = math.ceil(limits.cpu_seconds)
    return found
