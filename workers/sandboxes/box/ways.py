"""What a way into a box must do: start a first process with these file descriptors, and confirm it dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a box's first process ended, which is after everything else in the box."""

    #: Exit code, or minus the signal.
    code: int
    cpu_seconds: float
    largest_kb: int
    #: Why the box never was, or was lost through no fault of what ran in it.
    fault: str = ""


class Life(Protocol):
    """One box, from its start to its death."""

    dead: asyncio.Future[Death]

    def kill(self) -> None:
        """Kill all of it now; safe to repeat."""
        ...


class Way(Protocol):
    """Makes boxes in one particular manner; all confine alike."""

    name: str
    #: Whether the size of the scratch space is settled at the launch.
    fixed_size: bool

    async def launch(self, fds: Sequence[int], *, tmp_mb: int) -> Life:
        """Start a box with the file descriptors of `inside.supervisor.Lines`; the caller closes its copies.

        `tmp_mb` matters to a way that can't change the size later (see `fixed_size`).
        """
        ...

    async def aclose(self) -> None:
        """Kill every box and confirm them dead."""
        ...
