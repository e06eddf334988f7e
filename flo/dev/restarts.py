"""When to start a program again that ended by itself: decided purely."""

from __future__ import annotations

import signal
from datetime import timedelta

#: One that lived this long is taken for healthy: its next death is the first in a row again.
_HEALTHY = timedelta(seconds=15)
_FIRST_PAUSE = timedelta(milliseconds=100)
_LONGEST_PAUSE = timedelta(seconds=10)


def deaths_in_row(before: int, lived: timedelta) -> int:
    """Count this death, given how many came right before it."""
    return 1 if lived >= _HEALTHY else before + 1


def pause_before_restart(deaths: int) -> timedelta:
    """Double the pause with each death in a row."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * (1 << min(deaths - 1, 16)))


def how_it_ended(code: int) -> str:
    """Say what an exit code means."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
