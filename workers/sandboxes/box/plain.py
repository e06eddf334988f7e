"""Plain processes in place of boxes: for workers whose operator wants no sandbox, and for use inside a box.

The same orders, limits, outcomes and clean-up as any box, and no walls: what runs may do whatever its worker may.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.cgroups import Cgroups, Tree, find_tree
from workers.sandboxes.box.forks import ForkServer
from workers.sandboxes.box.identity import pid_namespace, started_at
from workers.sandboxes.box.inside.plain import remove_tree
from workers.sandboxes.box.inside.task import Furnishing
from workers.sandboxes.box.ways import Life

#: Seconds that the server has to end what it started and to remove its folders.
_PATIENCE = 10.0
_LOADER = "LD_LIBRARY_PATH"


async def open_plain(
    *, environment: Mapping[str, str] | None = None, spares: int = 1, tree: Tree | None = None
) -> NamespaceBox:
    """Open a place for plain processes; raises Unavailable where not even those can be looked after.

    `environment` is all that programs find beside what an order gives them, and HOME, their own folder; unless given it
    is this process's PATH, and LANG. Memory, processes and processors are held by cgroups where those can be written.
    """
    given = environment if environment is not None else _minimal(os.environ)
    box = NamespaceBox(PlainWay(), Cgroups(tree or find_tree()), environment=given, spares=spares)
    try:
        await box.try_out()
    except BaseException:
        await box.aclose()
        raise
    return box


def _minimal(ours: Mapping[str, str]) -> dict[str, str]:
    found = {"PATH": ours.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    return found | ({_LOADER: ours[_LOADER]} if _LOADER in ours else {})


class PlainWay:
    """Keeps one warm Python that forks each order's first process; `inside/open_room.py` is what it forks into."""

    name = "plain"
    confines = False
    limits_files = False

    def __init__(self, *, scratch: Path | None = None) -> None:
        self._scratch = scratch or Path(tempfile.gettempdir())
        self._starting = asyncio.Lock()
        self._server: ForkServer | None = None
        self._home: Path | None = None

    async def launch(self, fds: Sequence[int], given: Furnishing) -> Life:
        async with self._starting:
            if self._server is None or self._server.is_dead:
                self._server = await self._start()
        return await self._server.launch(fds, given, outside_id=-1)

    async def aclose(self) -> None:
        if self._server is not None:
            await self._server.aclose(patience=_PATIENCE)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)  # the server does, unless it was killed

    async def _start(self) -> ForkServer:
        if self._home is not None:  # of a server that is dead
            remove_tree(str(self._home))
        sweep(self._scratch)
        self._home = Path(
            tempfile.mkdtemp(prefix=f"{_prefix()}{os.getpid()}.{started_at(os.getpid())}.", dir=self._scratch)
        )
        env = {_LOADER: os.environ[_LOADER]} if _LOADER in os.environ else {}
        return await ForkServer.start(_python(), "inside.plain:serve", {"home": str(self._home)}, env=env)


def sweep(scratch: Path) -> None:
    """Remove what dead workers left here: those of whom even the server was killed."""
    for home in scratch.glob(f"{_prefix()}*"):
        pid, start, *_ = home.name.removeprefix(_prefix()).split(".")
        if started_at(int(pid)) != start:
            remove_tree(str(home))


def _prefix() -> str:
    return f"flo.plain.{pid_namespace()}."


def _python() -> str:
    """Give the interpreter below our virtual environment: programs have the standard library, as in a box."""
    return str(getattr(sys, "_base_executable", sys.executable))
