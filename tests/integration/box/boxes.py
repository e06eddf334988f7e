"""Open sandboxes for tests, and prove that nothing of a box is left.

A way that does not work here fails in CI and skips on a user's machine, with the reason that `probe` would give.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from schemas.errors import Unavailable
from tests.processes import children_of
from tests.servers import missing
from workers.sandboxes.box.base import BoxLimits, CommandOrder, OnOutput, PythonOrder, ignore_output
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.cgroups import find_tree
from workers.sandboxes.box.egress import NO_EGRESS, Egress
from workers.sandboxes.box.open import WAYS, open_box

#: Small enough that a bomb hurts nobody, large enough for an interpreter.
LIMITS: dict[str, Any] = {
    "timeout": timedelta(seconds=20), "memory_mb": 64, "pids": 16, "file_size_mb": 8, "tmp_mb": 8,
    "max_output_bytes": 100_000, "open_files": 64,
}  # fmt: skip


#: Parts of where Docker and its kind mount a container's root, its shared memory and its network; and its data on
#: itself, of a daemon that other tests start and stop (`tests/servers.py`).
_A_DAEMONS = ("/overlay2/", "/containers/", "/netns/", "/flo-docker-")


def limits(**changes: Any) -> BoxLimits:
    return BoxLimits(**LIMITS | changes)


def python(
    source: str, *, inputs: dict[str, Any] | None = None, egress: Egress = NO_EGRESS, **changes: Any
) -> PythonOrder:
    return PythonOrder(source=source, inputs=inputs or {}, app="tests", limits=limits(**changes), egress=egress)


def command(*argv: str, stdin: bytes = b"", files: dict[str, bytes] | None = None, collect: tuple[str, ...] = (),
            env: dict[str, str] | None = None, cwd: str = "", egress: Egress = NO_EGRESS,
            **changes: Any) -> CommandOrder:  # fmt: skip
    return CommandOrder(
        argv=argv, app="tests", limits=limits(**changes), stdin=stdin, files=files or {}, collect=collect,
        env=env or {}, cwd=cwd, egress=egress,
    )  # fmt: skip


def shell(script: str, **given: Any) -> CommandOrder:
    return command("/bin/sh", "-c", script, **given)


@asynccontextmanager
async def opened(way: str, **given: Any) -> AsyncIterator[NamespaceBox]:
    """Open a sandbox, and prove that closing it leaves nothing."""
    before = _footprint()
    try:
        box = await open_box(way=way, spares=given.pop("spares", 0), **given)
    except Unavailable as reason:
        missing(f"the sandbox by {way} ({reason})", "see docs/security.md, `what each way needs`")
        raise
    try:
        yield box
    finally:
        await box.aclose()
    after = _footprint()
    left = {what: (before[what], after[what]) for what in before if after[what] != before[what]}
    assert not left, left


def _footprint() -> dict[str, Any]:
    """What a sandbox could leave behind in this process's name."""
    return {
        "children": children_of(os.getpid()),
        "mounts": mounts(),
        "file descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "cgroups": [str(path) for path in cgroup_homes()],
    }


def descendants(pid: int) -> list[int]:
    below = children_of(pid)
    return [*below, *(deeper for child in below for deeper in descendants(child))]


async def gone(pidfd: int) -> None:
    """Wait for a process's end, and close what was open on it."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(pidfd, lambda: ended.done() or ended.set_result(None))
    await asyncio.wait_for(ended, 20)
    loop.remove_reader(pidfd)
    os.close(pidfd)


def mounts() -> list[str]:
    """What is mounted here, but for what a container daemon beside us mounts whenever it likes."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if not any(word in line for word in _A_DAEMONS)]


def cgroup_homes() -> list[Path]:
    """The cgroups that were made in this process's name, in whichever hierarchy."""
    folders = dict.fromkeys(find_tree().folders.values())
    return sorted(home for folder in folders for home in folder.glob(f"flo.*.{os.getpid()}.*"))


async def assert_clean(box: NamespaceBox) -> None:
    """Prove that no box of this sandbox lives, though the sandbox itself does; cgroups may take a moment."""
    zygotes = [pid for pid in children_of(os.getpid()) if _is_zygote(pid)]
    assert [pid for zygote in zygotes for pid in children_of(zygote)] == []
    await box.cgroups.settled()
    assert [str(place) for home in cgroup_homes() for place in home.glob("box-*")] == []


def _is_zygote(pid: int) -> bool:
    """Tell a parent of boxes from the servers that this process has started for other tests."""
    try:
        return b"inside.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Heard(list[tuple[str, bytes]]):
    """Remembers output; `first` is done at the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, stream: str, line: bytes) -> None:
        self.append((stream, line))
        if not self.first.done():
            self.first.set_result(None)


__all__ = [
    "WAYS", "Heard", "OnOutput", "assert_clean", "command", "descendants", "gone", "ignore_output",
    "limits", "mounts", "opened", "python", "shell",
]  # fmt: skip
