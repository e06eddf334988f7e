"""The jail of a Node host: a box of kernel namespaces with nothing in it but Node and the host's own folder.

It is for the day on which code finds its way out of an isolate: the host then has no network, no file that is not
public, no environment, no capability and few system calls, and the kernel bounds its memory and processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from datetime import timedelta
from pathlib import Path

from schemas.outcome import ErrorKind
from workers.sandboxes.box.base import (
    Box,
    BoxedProgram,
    BoxLimits,
    Exited,
    ProgramOrder,
    Stopped,
    ignore_output,
)
from workers.sandboxes.box.open import open_box
from workers.sandboxes.box.runtime import HOME
from workers.sandboxes.node.jail import STDERR_TAIL, HostDeath, HostProcess
from workers.sandboxes.node.program import HostProgram

#: Node's place in every box.
NODE_INSIDE = Path(HOME, "node", "bin", "node")
#: A host has some ten threads, and one per isolate that runs.
PIDS = 256
#: Address space for isolates, half a GB each: slots, stock and what is being freed.
RESERVED_MB = 64 * 1024
#: Of this machine's memory, in one host. The pool holds a host to what its runs may use, ten times a second; this
#: holds it in between, and when the worker itself is held up.
SHARE_OF_MEMORY = 0.5
#: struct ucred (unix(7)): pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")


def mounts_for(folder: Path) -> dict[str, str]:
    """Give what `open_box` needs as `mounts` for hosts whose program lies in this folder."""
    return {str(_inside(folder)): str(folder.resolve())}


class BoxJail:
    """Starts each host in a fresh box. The box must have been opened with `mounts_for` the host's folder."""

    def __init__(self, box: Box, *, name: str, memory_mb: int = 0, owns_box: bool = False) -> None:
        """Use `box`, and close it in the end if it is ours; `memory_mb` is the most that one host may ever have."""
        self.name = name
        self._box = box
        self._owns_box = owns_box
        self._limits = BoxLimits(
            timeout=timedelta.max,  # a host lives on
            memory_mb=memory_mb or _most_memory_mb(),
            pids=PIDS,
            file_size_mb=1,
            tmp_mb=1,
            reserved_mb=RESERVED_MB,
        )

    @classmethod
    async def open(cls, folder: Path, *, way: str = "") -> BoxJail:
        """Open a box of our own for hosts of this folder; raises Unavailable with the reason of each way."""
        box = await open_box(way=way, mounts=mounts_for(folder), spares=0)
        return cls(box, name=box.way.name, owns_box=True)

    async def start(self, program: HostProgram, *, node: Path) -> HostProcess:
        command = program.command(node=NODE_INSIDE, folder=_inside(program.folder))
        order = ProgramOrder(app="flo", argv=tuple(command), limits=self._limits, channel_fd=0)
        boxed = await self._box.start(order, ignore_output)
        # Ours alone: the box closes its own when the host is dead, whoever still reads.
        channel = boxed.channel.dup()
        try:
            return _Inmate(boxed, channel, await _pid_of_first_word(channel))
        except BaseException:
            channel.close()
            boxed.kill()
            await asyncio.shield(boxed.wait())
            raise

    async def aclose(self) -> None:
        if self._owns_box:
            await self._box.aclose()


class _Inmate:
    def __init__(self, boxed: BoxedProgram, channel: socket.socket, pid: int) -> None:
        self._boxed = boxed
        self.channel = channel
        self.pid = pid

    def kill(self) -> None:
        self._boxed.kill()

    async def wait(self) -> HostDeath:
        match await self._boxed.wait():
            case Exited(code=code, stderr=stderr):
                return HostDeath(code=code, last_words=_tail(stderr))
            case Stopped(error=error, stderr=stderr):
                return HostDeath(
                    code=-signal.SIGKILL,
                    last_words=_tail(stderr) or error.message,
                    out_of_memory=error.kind is ErrorKind.MEMORY_EXCEEDED,
                )


async def _pid_of_first_word(channel: socket.socket) -> int:
    """Wait for the host's first byte, leave it there, and learn who sent it: the kernel says so (unix(7)).

    The number is of our own pid namespace. 0 when the host ended without a word.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    loop.add_reader(channel, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(channel)
    space = socket.CMSG_SPACE(_CREDENTIALS.size)
    word, ancillary, _, _ = channel.recvmsg(1, space, socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    found = [data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
    return _CREDENTIALS.unpack(found[0])[0] if word and found else 0


def _inside(folder: Path) -> Path:
    return Path(HOME, folder.name)


def _most_memory_mb() -> int:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return max(1024, int(machine * SHARE_OF_MEMORY))


def _tail(words: bytes) -> str:
    return words[-STDERR_TAIL:].decode(errors="replace")
