"""The port of the namespace sandbox: what goes into a box and what comes out."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeAlias

from schemas.json import JSONValue
from schemas.outcome import RunError
from workers.sandboxes.box.egress import NO_EGRESS, Egress

#: Called with ("stdout" or "stderr", one line without its end) while the program runs; long lines come in pieces.
OnOutput: TypeAlias = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxLimits:
    """What one box may use; every limit is on the box as a whole unless it says otherwise."""

    #: Wall clock, from the order to the last byte.
    timeout: timedelta
    memory_mb: int = 256
    #: Processes and threads at once.
    pids: int = 64
    #: Processor time of all processes together; None leaves it to the wall clock.
    cpu_seconds: float | None = None
    #: Processors that may be used at once, e.g. 0.5; None for all.
    cpus: float | None = None
    #: Size of one file.
    file_size_mb: int = 64
    #: Scratch space: work folder, /tmp and /dev/shm together. It counts as memory, too.
    tmp_mb: int = 64
    #: stdout and stderr together; a Python result by itself; collected files together.
    max_output_bytes: int = 1_000_000
    #: Open files of one process.
    open_files: int = 256
    #: Memory that a program reserves beyond what it uses, in each of its processes (V8: half a GB per isolate); it
    #: loosens the rlimits only, not the cgroup. None for what most programs reserve.
    reserved_mb: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOrder:
    """One run of one command in a fresh box."""

    argv: tuple[str, ...]
    app: str
    limits: BoxLimits
    stdin: bytes = b""
    #: All that the program finds in its environment, but for PATH, HOME, LANG and the proxy's variables.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Put into the work folder, which is also the working directory; names are relative, without `..`.
    files: Mapping[str, bytes] = field(default_factory=dict)
    #: Files to bring out of the work folder at the end, as far as they are there and regular.
    collect: tuple[str, ...] = ()
    #: Put into /tmp, where the box has one of its own: what an earlier try of the same work left there.
    tmp: Mapping[str, bytes] = field(default_factory=dict)
    #: Bring /tmp out when the command fails, for its next try.
    keeps_tmp: bool = False
    #: Where the program starts: below the work folder, or absolute; a relative one is made. Empty: the work folder.
    cwd: str = ""
    egress: Egress = NO_EGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonOrder:
    """One run of a Python source that defines `main(**inputs)`, plain or async, in a fresh box."""

    source: str
    inputs: Mapping[str, JSONValue]
    app: str
    limits: BoxLimits
    filename: str = "main.py"
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    egress: Egress = NO_EGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramOrder:
    """A program that lives in a box of its own until it ends or is killed, with a socket to the worker.

    Give `argv`, or an `entry` (`module:function` of what the box was opened with in `preload`), which is called with
    the socket's number and `inputs`. `limits.timeout` does not hold for it: whoever started it keeps the time.
    """

    app: str
    limits: BoxLimits
    argv: tuple[str, ...] = ()
    entry: str = ""
    inputs: Mapping[str, JSONValue] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    egress: Egress = NO_EGRESS
    #: Number under which the program finds its end of the socket; 0 makes it stdin.
    channel_fd: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a box used, as far as this machine tells."""

    wall: timedelta
    cpu: timedelta
    #: Of the whole box where a memory cgroup holds it, else of its largest process.
    peak_memory_bytes: int
    #: Which limits were held by cgroups ("memory", "pids", "cpu"); the others by rlimits, per process.
    cgroups: frozenset[str]
    #: The kernel killed something in the box for want of memory; known only where a cgroup holds it.
    was_short_of_memory: bool = False


#: Of what never ran.
NO_USAGE = Usage(wall=timedelta(0), cpu=timedelta(0), peak_memory_bytes=0, cgroups=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The command ran to its end, well or not."""

    #: The exit code, or minus the signal that it died of.
    code: int
    stdout: bytes
    stderr: bytes
    files: Mapping[str, bytes]
    #: Files that were asked for and not brought out, each with the reason.
    missing: Mapping[str, str]
    usage: Usage
    #: What was in /tmp, if the order asked for it, the command failed, and it was little enough.
    tmp: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What main returned, as JSON carries it."""

    value: JSONValue
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A limit was hit, the code failed, or the box did; `error.details` names limit and raise_with."""

    error: RunError
    stdout: bytes
    stderr: bytes
    usage: Usage


CommandOutcome: TypeAlias = Exited | Stopped
PythonOutcome: TypeAlias = Returned | Stopped


class BoxedProgram(Protocol):
    """A program that lives in a box."""

    @property
    def channel(self) -> socket.socket:
        """The worker's end of the socket, non-blocking; the caller's to use, closed when the program is dead."""
        ...

    def kill(self) -> None:
        """Kill everything in the box now."""
        ...

    async def wait(self) -> CommandOutcome:
        """Return once the box is confirmed dead; cancelling this leaves the program alone."""
        ...


class Box(Protocol):
    """Makes boxes: each order gets one of its own, used once. Cancelling a run kills its box, confirmed."""

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        """Run a command; raises Refused for an order that can't be filled, and nothing for what the command does."""
        ...

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        """Run `main(**inputs)`; raises Refused for an order that can't be filled, nothing for what the code does."""
        ...

    async def start(self, order: ProgramOrder, on_output: OnOutput) -> BoxedProgram:
        """Start a program that lives on."""
        ...

    async def aclose(self) -> None:
        """Kill and confirm dead whatever is left; no process, cgroup, mount or folder remains."""
        ...


#: For a program whose output nobody wants.
def ignore_output(_stream: str, _line: bytes) -> None:
    return None


__all__ = [
    "NO_EGRESS", "NO_USAGE", "Box", "BoxLimits", "BoxedProgram", "CommandOrder", "CommandOutcome", "Egress", "Exited",
    "OnOutput", "ProgramOrder", "PythonOrder", "PythonOutcome", "Returned", "Stopped", "Usage", "ignore_output",
]  # fmt: skip
