"""What a way into a box must do: start a first process with these file descriptors, and confirm it dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from workers.sandboxes.box.inside.task import Furnishing


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
    """Makes boxes in one particular manner; all that confine do it alike."""

    name: str
    #: False for plain processes: their user, network and folders outside their own are the worker's.
    confines: bool
    #: Whether the number of files in scratch space has a limit.
    limits_files: bool

    async def launch(self, fds: Sequence[int], given: Furnishing) -> Life:
        """Start a box with the file descriptors of `inside.supervisor.Lines`; the caller closes its copies."""
        ...

    async def aclose(self) -> None:
        """Kill every box and confirm them dead."""
        ...
