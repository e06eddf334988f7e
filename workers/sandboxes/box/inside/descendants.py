"""Kill everything below this process, however it forked, without a pid namespace or a cgroup to do it.

Orphans come to us (prctl(2), PR_SET_CHILD_SUBREAPER), so nothing below can get away; it can only be quick.
"""

# Plain calls, not pathlib: this runs for every order.
# ruff: noqa: PTH208, PTH123, PTH110

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection

from . import kernel


def adopt_orphans() -> None:
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


def can_be_found() -> bool:
    """Tell whether this kernel says who the children of a process are (proc(5), CONFIG_PROC_CHILDREN)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def end(but: Collection[int] = ()) -> None:
    """Kill and reap all, except these children and what is below them."""
    while heads := [pid for pid in _children(os.getpid()) if pid not in but]:
        # Stopped first: a process that stands still can't fork faster than it is killed.
        stopped: set[int] = set()
        while moving := _below(heads) - stopped:
            for pid in moving:
                _signal(pid, signal.SIGSTOP)
            stopped |= moving
        for pid in stopped:
            _signal(pid, signal.SIGKILL)
        for pid in heads:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _below(heads: Collection[int]) -> set[int]:
    found, new = set(heads), list(heads)
    while new:
        new = [child for pid in new for child in _children(pid) if child not in found]
        found.update(new)
    return found


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
    found = []
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
            found += [int(word) for word in file.read().split()]
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
