"""Turn this process into the user's: its own user namespace, no capability, hard limits, the system call filter."""

# Plain calls, not pathlib: this runs in every box that is made.

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Iterable, Mapping

from . import kernel
from .task import INSIDE_ID

#: Above every number that a program is promised.
_OUT_OF_THE_WAY = 64
_PAST_ALL = 1 << 20


def become(outside_id: int) -> None:
    """Take the outside id for good, keeping capabilities until `enter_user_namespace` is done with them."""
    if outside_id < 0:
        return
    kernel.prctl(kernel.PR_SET_SECUREBITS, kernel.SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(outside_id, outside_id, outside_id)
    os.setresuid(outside_id, outside_id, outside_id)


def enter_user_namespace() -> None:
    """Leave the namespace that owns this box's mounts and network: nothing gained from here on counts there.

    Only our own id is mapped (user_namespaces(7)), so every other file is nobody's.
    """
    user, group = os.geteuid(), os.getegid()
    # The cgroup namespace comes late, so that this box's own cgroups are the root of what it sees of them.
    kernel.unshare(kernel.NEW_USER | kernel.NEW_CGROUP)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root, and the maps can't be written
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{INSIDE_ID} {user} 1")
    _write("/proc/self/gid_map", f"{INSIDE_ID} {group} 1")


def give_up_privileges() -> None:
    """Drop every capability and any way back to one."""
    with contextlib.suppress(PermissionError):  # without CAP_SETPCAP there is nothing to lock
        kernel.prctl(kernel.PR_SET_SECUREBITS, kernel.SECUREBITS_LOCKED)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def limit(rlimits: Mapping[str, int]) -> None:
    """Set each limit, soft and hard alike; never above what we have ourselves."""
    for name, value in rlimits.items():
        which = getattr(resource, name)
        _, hard = resource.getrlimit(which)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the soft limit SIGXCPU ends a process, which tells us why; at the hard one it is just killed.
        spare = 1 if name == "RLIMIT_CPU" and allowed == value else 0
        resource.setrlimit(which, (allowed, allowed + spare))


def invite_oom_killer() -> None:
    """Be the first to go when the box is out of memory, before its pid 1 that tells of it (proc(5), oom_score_adj)."""
    _write("/proc/self/oom_score_adj", "1000")


def reset_signals() -> None:
    """Undo what Python and the zygote did to signals."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def keep_only(wanted: Mapping[int, int]) -> None:
    """Give each file descriptor its wanted number (`{number: fd}`, numbers below 64) and close all others."""
    above = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, _OUT_OF_THE_WAY) for number, fd in wanted.items()}
    for number, fd in above.items():
        os.dup2(fd, number)
    close_others(wanted)


def close_others(keep: Iterable[int]) -> None:
    """Close every file descriptor but these."""
    start = 0
    for number in [*sorted(keep), _PAST_ALL]:
        if number > start:  # closerange(0, 0) would close all
            os.closerange(start, number)
        start = number + 1


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # open() would cost an encoding, and ten system calls
    os.write(fd, text.encode())
    os.close(fd)
