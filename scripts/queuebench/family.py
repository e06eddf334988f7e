"""What processes and all that they have started use, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True, slots=True)
class Use:
    """CPU seconds so far, and memory now; pages that processes share count once for each."""

    cpu_s: float
    memory_mb: float


def use_of(pids: Iterable[int]) -> Use:
    """Add up these processes and their living descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    uses: dict[int, Use] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # After the name, which may hold anything: state, parent, ... utime, stime, ... rss (proc(5)).
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children[int(fields[1])].append(int(entry.name))
                cpu = (int(fields[11]) + int(fields[12])) / _TICKS
                uses[int(entry.name)] = Use(cpu, int(fields[21]) * _PAGE_MB)
    family = list(pids)
    for pid in family:
        family.extend(children[pid])
    found = [uses[pid] for pid in family if pid in uses]
    return Use(sum(one.cpu_s for one in found), sum(one.memory_mb for one in found))
