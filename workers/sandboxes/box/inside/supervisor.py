"""A box's first process: furnish the box, start the user's program in it, and be its init until it is over.

It is pid 1 of the box. When it dies, the kernel kills everything else in there (pid_namespaces(7)); it dies when the
worker or the zygote does. The user's program runs in a user namespace below, and can neither signal nor read it.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from . import confine, frames, kernel, program, room, seccomp, shelf
from .task import WORK, Furnishing, Task

#: Where the program keeps its end of the gate and of the fault pipe until it starts.
_GATE, _FAULT = 40, 41


@dataclass(frozen=True, slots=True)
class Lines:
    """The file descriptors that a box is given."""

    control: int
    stdin: int
    stdout: int
    stderr: int
    extra: int | None
    #: cgroup.procs of each cgroup to join, open for writing.
    cgroups: tuple[int, ...]

    @classmethod
    def of(cls, given: Furnishing, fds: Sequence[int]) -> Lines:
        control, stdin, stdout, stderr, *rest = fds
        extra = rest.pop(0) if given.has_extra else None
        return cls(control, stdin, stdout, stderr, extra, tuple(rest))


def supervise(given: Furnishing, fds: Sequence[int], furnish: Callable[[Furnishing], None]) -> NoReturn:
    """Live the box's whole life; never returns."""
    lines = Lines.of(given, fds)
    worker = socket.socket(fileno=lines.control)
    try:
        _join_cgroups(lines.cgroups)
        furnish(given)
        if given.has_proxy:
            _hand_over_listener(worker)
        head, body = frames.read(worker)
        task = Task(**head)
        main = _Main.fork(given, task, lines)
        _step_down(given, lines)
        shelf.put(task.files, body)
        main.open_gate()
        code = _watch(main.pid, worker)
        main.raise_fault()
        _end_all()
        _report(worker, task, code)
    except EOFError:
        pass  # the worker is gone, and all in here with it
    except BaseException as fault:  # noqa: BLE001 - the edge of a process: the worker is told
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
    """The user's program, which waits at a gate until pid 1 has stepped down."""

    def __init__(self, pid: int, gate: int, faults: int) -> None:
        self.pid = pid
        self._gate = gate
        self._faults = faults

    @classmethod
    def fork(cls, given: Furnishing, task: Task, lines: Lines) -> _Main:
        gate, opener = os.pipe()
        faults, fault = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become_program(given, task, lines, gate, fault)
        os.close(gate)
        os.close(fault)
        return cls(pid, opener, faults)

    def open_gate(self) -> None:
        os.close(self._gate)

    def raise_fault(self) -> None:
        """Raise what kept the program from starting; its own end of the pipe was closed before any of its code ran."""
        if told := os.read(self._faults, 4096):
            raise RuntimeError(told.decode())


def _become_program(given: Furnishing, task: Task, lines: Lines, gate: int, fault: int) -> NoReturn:
    try:
        confine.reset_signals()
        os.setsid()
        wanted = {0: lines.stdin, 1: lines.stdout, 2: lines.stderr, _GATE: gate, _FAULT: fault}
        if lines.extra is not None:
            wanted[task.extra_fd] = lines.extra
        confine.keep_only(wanted)
        confine.become(given.outside_id)
        confine.enter_user_namespace()
        confine.invite_oom_killer()
        confine.limit(task.rlimits)
        confine.give_up_privileges()
        os.chdir(WORK)
        os.read(_GATE, 1)
        os.close(_GATE)
        kernel.filter_syscalls(seccomp.PROGRAM)
    except BaseException as problem:  # noqa: BLE001 - the edge of a process
        os.write(_FAULT, f"{type(problem).__name__}: {problem}".encode())
        os._exit(1)
    os.close(_FAULT)
    program.run(task, has_extra=lines.extra is not None)


def _step_down(given: Furnishing, lines: Lines) -> None:
    """Give up every privilege, and die with the parent from here on."""
    for fd in (lines.stdin, lines.stdout, lines.stderr, lines.extra):
        if fd is not None:
            os.close(fd)
    confine.become(given.outside_id)
    confine.give_up_privileges()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    # After the last change of identity, which would clear it (prctl(2)).
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.filter_syscalls(seccomp.PROGRAM)


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


def _end_all() -> None:
    """Kill and reap whatever the program left, so that its files stand still while they are read."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _report(worker: socket.socket, task: Task, code: int) -> None:
    collected, body = shelf.take(task.collect, task.collect_bytes)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    head = {
        "exit": code,
        "files": collected,
        "cpu_seconds": spent.ru_utime + spent.ru_stime,
        "largest_kb": spent.ru_maxrss,
    }
    worker.sendall(frames.pack(head, body))
