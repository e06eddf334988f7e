"""What /proc says of processes, while they come and go."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children_of(pid: int | str) -> list[int]:
    """List a process's children, whichever of its threads has started them; none of one that is gone."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended; its children have another now
            found += [int(child) for child in file.read_text().split()]
    return found
