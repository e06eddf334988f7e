"""A box that has no task yet: its pipes, its cgroups, its first process. Made ahead, so that an order need not wait."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from workers.sandboxes.box.base import BoxLimits
from workers.sandboxes.box.cgroups import Cgroups, Group
from workers.sandboxes.box.inside.task import Furnishing
from workers.sandboxes.box.ways import Life, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """The worker's ends of a box's lines."""

    life: Life
    group: Group
    control: socket.socket
    #: What the program finds beside its three streams, if it is told to look.
    channel: socket.socket
    stdin: int
    stdout: int
    stderr: int
    given: Furnishing
    #: The cgroup controllers that hold it.
    controllers: frozenset[str]

    @property
    def is_dead(self) -> bool:
        return self.life.dead.done()

    async def discard(self, cgroups: Cgroups) -> None:
        """Kill a box that was never used, and confirm it dead."""
        self.life.kill()
        await self.life.dead
        self.control.close()
        self.channel.close()
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)
        cgroups.remove(self.group)


async def open_shell(way: Way, cgroups: Cgroups, given: Furnishing, limits: BoxLimits) -> Shell:
    """Make a box up to where it waits for its task; `limits` are what its cgroups start with."""
    group = cgroups.make(limits)
    control, far_control = socket.socketpair()
    channel, far_channel = socket.socketpair()
    stdin, near_stdin = os.pipe()
    near_stdout, stdout = os.pipe()
    near_stderr, stderr = os.pipe()
    theirs = [far_control.detach(), stdin, stdout, stderr, far_channel.detach(), *group.open_procs()]
    channel.setblocking(False)
    try:
        life = await way.launch(theirs, given)
    except BaseException:
        control.close()
        channel.close()
        for fd in (near_stdin, near_stdout, near_stderr):
            os.close(fd)
        cgroups.remove(group)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return Shell(
        life=life, group=group, control=control, channel=channel, stdin=near_stdin, stdout=near_stdout,
        stderr=near_stderr, given=given, controllers=cgroups.wanted(limits),
    )  # fmt: skip
