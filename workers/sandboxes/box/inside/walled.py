"""A room with walls: in namespaces of its own, whoever made them. What runs in it can't reach past them."""

from __future__ import annotations

import contextlib
import os
import signal

from . import confine, kernel, seccomp
from .task import WORK, Furnishing


class WalledRoom:
    """Everything but the furnishing, which is up to the way."""

    work = WORK
    has_own_tmp = True

    def __init__(self, given: Furnishing, outside_id: int = -1) -> None:
        self.given = given
        #: The id to take outside, which owns nothing else on this machine; -1 keeps the only one there is.
        self.outside_id = outside_id

    def furnish(self) -> None:
        return None

    def confine_program(self) -> None:
        confine.become(self.outside_id)
        confine.enter_user_namespace()
        confine.invite_oom_killer()
        confine.give_up_privileges()
        os.chdir(WORK)
        kernel.filter_syscalls(seccomp.PROGRAMS[self.given.memory_is_held])

    def step_down(self) -> None:
        """Give up every privilege, and die with the parent from here on."""
        confine.become(self.outside_id)
        confine.give_up_privileges()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        # After the last change of identity, which would clear it (prctl(2)).
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.filter_syscalls(seccomp.PROGRAMS[self.given.memory_is_held])

    def end_all(self) -> None:
        """Kill and reap whatever the program left: we are pid 1, so all that we may signal is in here."""
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return
