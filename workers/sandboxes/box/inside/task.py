"""What a box is told: how to furnish itself, and what to run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: Who the user's program is inside its box.
INSIDE_ID = 1000
WORK = "/work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Furnishing:
    """What the zygote hands to a box that it has just forked; the file descriptors come beside it, in this order."""

    #: The id outside, which owns nothing else on this machine; -1 keeps the only id that there is.
    outside_id: int
    tmp_mb: int
    tmp_files: int
    #: The program is given a socket or pipe of its own beside its three streams.
    has_extra: bool
    #: Give back a listening socket on the box's loopback interface.
    has_proxy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One program: a command (`argv`), or else Python (`source` of a module that defines main)."""

    argv: tuple[str, ...] = ()
    env: dict[str, str]
    #: (name, size) of the files to put into the work folder; their bytes follow as the frame's body.
    files: tuple[tuple[str, int], ...] = ()
    collect: tuple[str, ...] = ()
    collect_bytes: int = 0
    #: RLIMIT name -> value, for both the soft and the hard limit.
    rlimits: dict[str, int]
    #: The number under which the program finds its extra socket or pipe.
    extra_fd: int = 3
    source: str = ""
    inputs: dict[str, Any] | None = None
    filename: str = "main.py"
    max_result_bytes: int = 0
    #: `module:function` that was imported by the zygote and is called instead of a command or source.
    entry: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
