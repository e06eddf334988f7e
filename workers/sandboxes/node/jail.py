"""Where a Node host lives: the port, and the way without walls. `boxed.py` is the way with them."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from schemas.errors import Unavailable
from workers.sandboxes.node.program import HostProgram
from workers.sandboxes.node.setup import die_with_parent

#: Bytes of a dead host's stderr that are read to learn why it died.
STDERR_TAIL = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDeath:
    """How a host ended."""

    #: Exit code, or minus the signal.
    code: int
    #: The end of what it wrote to stderr.
    last_words: str
    #: The kernel killed it at its memory limit.
    out_of_memory: bool = False


class HostProcess(Protocol):
    """A host that was started."""

    #: Our end of the socket on its descriptor 0, non-blocking; the caller's to close.
    channel: socket.socket
    #: Its number here, not in any namespace of its own; 0 when it ended before it said anything.
    pid: int

    def kill(self) -> None:
        """Kill it and all that it started; safe to repeat."""
        ...

    async def wait(self) -> HostDeath:
        """Return when it is confirmed dead; to be called once."""
        ...


class Jail(Protocol):
    """Starts hosts, each with walls of its own around it."""

    #: How the walls are made; empty when there are none.
    name: str

    async def start(self, program: HostProgram, *, node: Path) -> HostProcess:
        """Start the program; `node` is Node's place here. Raises Unavailable with the reason when that can't be."""
        ...

    async def aclose(self) -> None:
        """Take the walls down; every host is dead by now."""
        ...


class NoJail:
    """Starts hosts as plain child processes, with the rights of this one and an environment of their own.

    Each leads a session, so that it meets no Ctrl-C that is meant for the worker, and whatever it started is killed
    with it. `prefix` goes before Node's command line; the default has the kernel kill the host with its parent.
    """

    name = ""

    def __init__(
        self, *, prefix: Sequence[str] | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self._prefix = die_with_parent() if prefix is None else prefix
        self._env = dict(env or {})
        self._cwd = cwd

    async def start(self, program: HostProgram, *, node: Path) -> HostProcess:
        command = [*self._prefix, *program.command(node=node, folder=program.folder.resolve())]
        ours, theirs = socket.socketpair()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is waited for
        try:
            # A vfork and an exec: nothing to wait for.
            process = subprocess.Popen(  # noqa: ASYNC220
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=stderr,
                cwd=self._cwd or program.folder, env=self._env, start_new_session=True,
            )  # fmt: skip
        except OSError as problem:
            ours.close()
            stderr.close()
            raise Unavailable(f"{command[0]} does not start ({problem}): run scripts/setup") from None
        finally:
            theirs.close()
        ours.setblocking(False)
        return _Child(process, ours, stderr)

    async def aclose(self) -> None:
        return None


class _Child:
    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, stderr: IO[bytes]) -> None:
        self._process = process
        self._stderr = stderr
        self.channel = channel
        self.pid = process.pid

    def kill(self) -> None:
        # Until it is waited for its number is its own, and that of its session.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> HostDeath:
        code = await asyncio.to_thread(self._process.wait)
        with self._stderr as stderr:
            size = stderr.seek(0, os.SEEK_END)
            stderr.seek(max(0, size - STDERR_TAIL))
            return HostDeath(code=code, last_words=stderr.read().decode(errors="replace"))


def resident_mb(pid: int) -> float:
    """Read how much memory a process has, in MB; 0 where there is no /proc or it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * mmap.PAGESIZE / 1_000_000
    return 0.0
