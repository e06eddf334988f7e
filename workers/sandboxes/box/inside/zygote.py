"""The warm parent: a Python that has imported what programs need, sits in the boxes' root, and forks.

It never runs or reads anything of a user's. Each fork is a box's pid 1, in namespaces of its own; `supervisor.py` goes
on from there. It has one thread, one socket to the worker, and dies with the worker.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Collection, Iterable
from typing import Any, NoReturn, Protocol

from . import confine, kernel, python, room, root, supervisor  # noqa: F401 - imported before the forks
from .task import Furnishing
from .walled import WalledRoom

_BOX = kernel.NEW_PID | kernel.NEW_MOUNT | kernel.NEW_NET | kernel.NEW_IPC | kernel.NEW_UTS
#: Imported once, and there in every box: what short programs use most. Order and amount cost start-up time only.
_WARM = (
    "base64", "collections", "csv", "dataclasses", "datetime", "decimal", "functools", "hashlib", "html", "io",
    "itertools", "json", "math", "operator", "pathlib", "random", "re", "statistics", "string", "textwrap", "time",
    "typing", "urllib.parse", "uuid",
)  # fmt: skip
#: More than the most file descriptors of one order.
_MOST_FDS = 32
_LONGEST_ORDER = 65536


def enter() -> NoReturn:
    """Build the root, move into it, and start anew from the Python that is in it.

    `sys.argv[1]` is JSON: `fd`, `as_root`, `mounts`, `python` (its path inside), `library_path`, `package`, `preload`,
    `path`.
    """
    given = json.loads(sys.argv[1])
    door = socket.socket(fileno=given["fd"])
    try:
        root.enter_namespaces(as_root=given["as_root"])
        root.build(given["mounts"], with_host_proc=not given["as_root"])
        door.set_inheritable(True)
        start = f"import sys; sys.path[:0] = {given['path']!r}; from inside.zygote import serve; serve()"
        env = {"LD_LIBRARY_PATH": given["library_path"]} if given["library_path"] else {}
        os.execve(given["python"], [given["python"], "-I", "-S", "-c", start, sys.argv[1]], env)
    except OSError as problem:
        say(door, {"failed": f"{problem.filename or 'start'}: {problem.strerror}"})
    os._exit(1)


def serve() -> NoReturn:
    """Import what is wanted, then fork a box for each order until the worker is gone."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    given = json.loads(sys.argv[1])
    door = socket.socket(fileno=given["fd"])
    try:
        warm_up(given["preload"])
    except BaseException:  # noqa: BLE001 - the edge of a process
        say(door, {"failed": traceback.format_exc(limit=-2)})
        os._exit(1)
    say(door, {"ready": True})
    Zygote(door, _Namespaces()).serve()


def warm_up(preload: Iterable[str]) -> None:
    """Import what programs need, and make this process good to fork."""
    for name in (*_WARM, *preload):
        importlib.import_module(name)
    os.environ.clear()
    gc.collect()
    gc.freeze()
    gc.disable()


class Ground(Protocol):
    """Where rooms are made: each in namespaces of its own, or side by side."""

    def fork(self) -> int: ...

    def room(self, order: dict[str, Any]) -> supervisor.Room: ...

    def clear(self, number: int, living: Collection[int]) -> None:
        """Remove what a room leaves after its first process is dead; `living` are those of other rooms."""
        ...

    def leave(self, living: Collection[int]) -> NoReturn:
        """End this process, and every room: the worker is gone."""
        ...


class _Namespaces:
    """Each room in namespaces of its own, with which all that is in it goes."""

    def fork(self) -> int:
        return kernel.clone(_BOX)

    def room(self, order: dict[str, Any]) -> supervisor.Room:
        return _ForkedRoom(Furnishing(**order["given"]), order["outside_id"])

    def clear(self, number: int, living: Collection[int]) -> None:
        return None

    def leave(self, living: Collection[int]) -> NoReturn:
        os._exit(0)  # and with me every box


class Zygote:
    """Forks rooms and reaps them, by order of the worker."""

    def __init__(self, door: socket.socket, ground: Ground) -> None:
        self._door = door
        self._ground = ground
        self._boxes: dict[int, int] = {}

    def serve(self) -> NoReturn:
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
        poll = select.poll()
        poll.register(self._door, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == woken:
                    os.read(woken, 512)
                    self._reap()
                else:
                    self._hear()

    def _hear(self) -> None:
        order, fds = _receive(self._door)
        if order is None:
            self._ground.leave(list(self._boxes))
        if order["do"] == "kill":
            for pid, number in self._boxes.items():
                if number == order["box"]:
                    os.kill(pid, signal.SIGKILL)
            return
        try:
            pid = self._ground.fork()
        except OSError as problem:
            say(self._door, {"box": order["box"], "failed": f"{problem.filename}: {problem.strerror}"})
            pid = -1
        if pid == 0:
            self._become_box(order, fds)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            self._boxes[pid] = order["box"]

    def _become_box(self, order: dict[str, Any], fds: list[int]) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            confine.close_others({0, 1, 2, *fds})
            supervisor.supervise(self._ground.room(order), fds)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Confirm boxes dead: a pid 1 is reaped after the last process of its namespace is gone."""
        while True:
            try:
                pid, status, spent = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._boxes.pop(pid, None)
            if number is None:
                continue  # it outlived its room's first process
            self._ground.clear(number, self._boxes)
            say(
                self._door,
                {
                    "box": number,
                    "code": os.waitstatus_to_exitcode(status),
                    "cpu_seconds": spent.ru_utime + spent.ru_stime,
                    "largest_kb": spent.ru_maxrss,
                },
            )


class _ForkedRoom(WalledRoom):
    """A box that was forked here: everything in it is still to be mounted, by whoever still may."""

    def furnish(self) -> None:
        room.furnish(self.outside_id, self.given.tmp_mb)
        if self.given.has_proxy:
            room.raise_loopback()


def _receive(door: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    text, ancillary, _, _ = door.recvmsg(_LONGEST_ORDER, socket.CMSG_SPACE(_MOST_FDS * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return (json.loads(text) if text else None), list(fds)


def say(door: socket.socket, what: dict[str, Any]) -> None:
    try:
        door.send(json.dumps(what).encode())
    except OSError:
        os._exit(0)
