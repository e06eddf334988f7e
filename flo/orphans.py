"""No child outlives its parent, even one that was killed with SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

#: `PR_SET_PDEATHSIG` of prctl(2): the signal that the kernel sends when the parent dies.
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """Make a `preexec_fn` that ties a child's life to the thread that starts it.

    Only Linux has such a tie; elsewhere this is None, and children of a killed parent live on.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the tie was made
            os._exit(1)

    return tie
