"""A room without walls: a folder and a session of its own, and nothing else between it and what is around it.

For workers whose operator wants no sandbox, and for use inside a box, whose walls are the ones that count.
"""

# Plain calls, not pathlib: this runs for every order.
# ruff: noqa: PTH102

from __future__ import annotations

import os
import signal
from types import FrameType

from . import confine, descendants, kernel
from .task import Furnishing


class OpenRoom:
    """One order's: whatever it starts is below its first process, which reaps orphans and ends with its parent."""

    has_own_tmp = False

    def __init__(self, given: Furnishing, work: str) -> None:
        self.given = given
        self.work = work

    def furnish(self) -> None:
        os.setsid()  # Ctrl-C is the worker's to handle
        descendants.adopt_orphans()
        signal.signal(signal.SIGTERM, _leave)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
        os.mkdir(self.work, 0o700)

    def confine_program(self) -> None:
        confine.invite_oom_killer()
        os.chdir(self.work)

    def step_down(self) -> None:
        return None

    def end_all(self) -> None:
        """Kill and reap whatever the program left."""
        descendants.end()


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise EOFError("the parent is gone")
