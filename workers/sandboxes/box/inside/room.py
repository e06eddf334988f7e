"""Furnish a box: its own scratch space, its own /proc, its own loopback. Runs in the box's new namespaces."""

# Plain calls, not pathlib: this runs in every box that is made.
# ruff: noqa: PTH101, PTH102

from __future__ import annotations

import fcntl
import os
import socket
import struct

from . import kernel
from .task import WORK

#: Where the box's scratch file system is mounted for a moment, to be bound to its places.
STAGE = "/.stage"
#: The host's /proc, which a user namespace must still see to be allowed one of its own; gone before anything runs.
HOST_PROC = "/.proc"
HOSTNAME = "flo"
PROXY_PORT = 3128

_SCRATCH = kernel.MS_NOSUID | kernel.MS_NODEV
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
#: A limit on how many files there may be: on average 4 KiB each.
_FILES_PER_MB = 256
#: Connections that wait for the worker to take them.
_BACKLOG = 64


def furnish(outside_id: int, tmp_mb: int) -> None:
    """Mount what is this box's own. The root below is the zygote's: read-only, and without a host path in it."""
    socket.sethostname(HOSTNAME)
    # One file system for all scratch space, so that one limit holds for all of it. Its pages count as memory.
    options = f"size={tmp_mb}m,nr_inodes={max(64, tmp_mb * _FILES_PER_MB)},mode=755"
    kernel.mount("tmpfs", STAGE, "tmpfs", _SCRATCH, options)
    for name, place, mode in (("work", WORK, 0o700), ("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777)):
        folder = f"{STAGE}/{name}"
        os.mkdir(folder)
        os.chmod(folder, mode)
        if outside_id >= 0:
            os.chown(folder, outside_id, outside_id)
        kernel.mount(folder, place, None, kernel.MS_BIND)
    kernel.unmount(STAGE)
    # proc(5): only processes, and of those only one's own; no /proc/sys, kcore, keys, sysrq-trigger ...
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags, "subset=pid,hidepid=invisible")
    if os.path.ismount(HOST_PROC):
        kernel.unmount(HOST_PROC)


def raise_loopback() -> None:
    """Bring `lo` up (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(handle, _SIOCGIFFLAGS, request))[1]
        if not flags & _IFF_UP:
            fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def listen_for_worker() -> socket.socket:
    """Open the proxy's socket. It belongs to this box's network, and is served by the worker that is handed it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", PROXY_PORT))
    listener.listen(_BACKLOG)
    return listener
