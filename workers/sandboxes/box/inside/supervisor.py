"""A box's first process: furnish the box, start the user's program in it, and be its init until it is over.

It is pid 1 of the box. When it dies, the kernel kills everything else in there (pid_namespaces(7)); it dies when the
worker or the zygote does. The user's program runs in a user namespace below, and can neither signal nor read it.

A box is made ahead of its task, up to the program's process waiting at its gate; then it is *spare*. It is used once.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from . import confine, frames, program, room, shelf
from .task import Furnishing, Task

#: Where the program keeps its gate, its end of the fault pipe and its socket until it starts.
_GATE, _FAULT, _SOCKET = 40, 41, 42


@dataclass(frozen=True, slots=True)
class Lines:
    """The file descriptors that a box is given, in this order."""

    control: int
    stdin: int
    stdout: int
    stderr: int
    socket: int
    #: cgroup.procs of each cgroup to join, open for writing.
    cgroups: tuple[int, ...]

    @classmethod
    def of(cls, fds: Sequence[int]) -> Lines:
        control, stdin, stdout, stderr, socket_, *cgroups = fds
        return cls(control, stdin, stdout, stderr, socket_, tuple(cgroups))


class Room(Protocol):
    """What differs between the ways into a box: who has mounted what, and whether there are walls."""

    given: Furnishing
    #: The program's folder, as it sees it.
    work: str
    #: Whether /tmp is the box's own.
    has_own_tmp: bool

    def furnish(self) -> None: ...

    def confine_program(self) -> None:
        """Make this process the user's, in its folder; runs in the program's process."""
        ...

    def step_down(self) -> None:
        """Keep nothing that the program must not get at; runs in this process."""
        ...

    def end_all(self) -> None:
        """Kill and reap whatever the program left, so that its files stand still while they are read."""
        ...


def supervise(place: Room, fds: Sequence[int]) -> NoReturn:
    """Live the box's whole life; never returns."""
    lines = Lines.of(fds)
    worker = socket.socket(fileno=lines.control)
    # Python's handler would let anyone in the box end pid 1 by a SIGINT; with the default action it is immune.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        _join_cgroups(lines.cgroups)
        place.furnish()
        if place.given.has_proxy:
            _hand_over_listener(worker)
        main = _Main.fork(place, lines)
        _close_streams(lines)
        place.step_down()
        head, body = frames.read(worker)
        task = Task(**json.loads(head))
        shelf.put("/tmp", task.tmp, body, shelf.put(place.work, task.files, body))
        main.open_gate(head)
        code = _watch(main.pid, worker)
        main.raise_fault()
        place.end_all()
        _report(worker, place, task, code)
    except EOFError:
        place.end_all()  # the worker is gone, or has no task for this box: all in here ends with it
    except BaseException as fault:  # noqa: BLE001 - the edge of a process: the worker is told
        place.end_all()
        worker.sendall(frames.pack({"fault": f"{type(fault).__name__}: {fault}"}))
    os._exit(0)


def _join_cgroups(procs: Sequence[int]) -> None:
    for fd in procs:
        os.write(fd, b"0")
        os.close(fd)


def _hand_over_listener(worker: socket.socket) -> None:
    with room.listen_for_worker() as listener:
        socket.send_fds(worker, [b"L"], [listener.fileno()])


class _Main:
    """The user's program, which waits at a gate for its task until pid 1 has stepped down."""

    def __init__(self, pid: int, gate: int, faults: int) -> None:
        self.pid = pid
        self._gate = gate
        self._faults = faults

    @classmethod
    def fork(cls, place: Room, lines: Lines) -> _Main:
        gate, opener = os.pipe()
        faults, fault = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become_program(place, lines, gate, fault)
        os.close(gate)
        os.close(fault)
        return cls(pid, opener, faults)

    def open_gate(self, task: bytes) -> None:
        with os.fdopen(self._gate, "wb") as gate:
            gate.write(task)

    def raise_fault(self) -> None:
        """Raise what kept the program from starting; its own end of the pipe was closed before any of its code ran."""
        if told := os.read(self._faults, 4096):
            raise RuntimeError(told.decode())


def _become_program(place: Room, lines: Lines, gate: int, fault: int) -> NoReturn:
    try:
        confine.reset_signals()
        os.setsid()
        confine.keep_only(
            {0: lines.stdin, 1: lines.stdout, 2: lines.stderr, _GATE: gate, _FAULT: fault, _SOCKET: lines.socket}
        )
        place.confine_program()
        with os.fdopen(_GATE, "rb") as opened:
            told = opened.read()
        if not told:
            os._exit(0)
        task = Task(**json.loads(told))
        task.env.setdefault("HOME", place.work)
        if task.extra_fd >= 0:
            os.dup2(_SOCKET, task.extra_fd)
        os.close(_SOCKET)
        confine.limit(task.rlimits)
    except BaseException as problem:  # noqa: BLE001 - the edge of a process
        os.write(_FAULT, f"{type(problem).__name__}: {problem}".encode())
        os._exit(1)
    os.close(_FAULT)
    try:
        program.run(task)
    finally:
        os._exit(1)  # whatever the program did to what runs it, this process never gets back to being pid 1's


def _close_streams(lines: Lines) -> None:
    for fd in (lines.stdin, lines.stdout, lines.stderr, lines.socket):
        os.close(fd)


def _watch(main: int, worker: socket.socket) -> int:
    """Reap what dies until the program itself has; give its exit code, or minus the signal that ended it.

    Raises EOFError when the worker is gone. The worker says nothing more, so anything to read is its end.
    """
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(worker, select.POLLIN)
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                raise RuntimeError("the program is gone without a trace") from None
            if pid == 0:
                break
            if pid == main:
                return os.waitstatus_to_exitcode(status)
        for fd, _ in poll.poll():
            if fd == worker.fileno():
                raise EOFError
            os.read(woken, 512)


def _report(worker: socket.socket, place: Room, task: Task, code: int) -> None:
    collected, body = shelf.take(place.work, task.collect, task.collect_bytes)
    keeps = task.keeps_tmp and place.has_own_tmp and code != 0
    kept, kept_body = shelf.keep("/tmp") if keeps else ([], b"")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    head = {
        "exit": code,
        "files": collected,
        "tmp": kept,
        "cpu_seconds": spent.ru_utime + spent.ru_stime,
        "largest_kb": spent.ru_maxrss,
    }
    worker.sendall(frames.pack(head, body + kept_body))
