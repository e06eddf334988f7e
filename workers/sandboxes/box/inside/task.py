"""What a box is told when it is no longer spare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: Who the user's program is inside its box.
INSIDE_ID = 1000
WORK = "/work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Furnishing:
    """What must be known of a box when it is made, before it has a task: a spare one fits an order that wants this."""

    tmp_mb: int
    #: Give back a listening socket on the box's loopback interface, which is down otherwise.
    has_proxy: bool
    #: A memory cgroup holds the box; without one, memory that no rlimit counts must not be had at all.
    memory_is_held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to run: a command (`argv`), a Python `source` that defines main, or an `entry` of ours; and its limits."""

    argv: tuple[str, ...] = ()
    source: str = ""
    #: `module:function` that was imported by the zygote; called with the number of its socket and the inputs.
    entry: str = ""
    inputs: dict[str, Any] | None = None
    filename: str = "main.py"
    env: dict[str, str]
    #: Where to start, seen from the work folder.
    cwd: str = ""
    #: (name, size) of the files to put into the work folder; their bytes follow as the frame's body.
    files: tuple[tuple[str, int], ...] = ()
    #: The same for /tmp; their bytes follow those of `files`.
    tmp: tuple[tuple[str, int], ...] = ()
    #: Give back what is in /tmp when the program fails.
    keeps_tmp: bool = False
    collect: tuple[str, ...] = ()
    collect_bytes: int = 0
    max_result_bytes: int = 0
    #: Number under which the program finds its socket; -1 for a command that has none.
    extra_fd: int = -1
    #: RLIMIT name -> value, for both the soft and the hard limit.
    rlimits: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
