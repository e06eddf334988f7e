"""The quick way: a warm Python that forks each box out of itself, in namespaces of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence

from workers.sandboxes.box.forks import ForkServer
from workers.sandboxes.box.inside.task import Furnishing
from workers.sandboxes.box.runtime import Runtime
from workers.sandboxes.box.ways import Life

#: The first of the ids, outside, that boxes run under: high, and nobody's. Each box of a worker has another one.
FIRST_ID = 0x6000_0000
#: The id of a way that has only one, when root starts it.
NOBODY = FIRST_ID - 1
_IDS_PER_WORKER = 4096
_WORKERS = 65536


class ZygoteWay:
    """Keeps one zygote alive; a box that is lost with it says so, and the next order gets a new one."""

    confines = True
    limits_files = True

    def __init__(self, runtime: Runtime, *, as_root: bool) -> None:
        self.name = "zygote" if as_root else "zygote with a user namespace"
        self._runtime = runtime
        self._as_root = as_root
        self._ids = itertools.count()
        self._starting = asyncio.Lock()
        self._zygote: ForkServer | None = None

    async def launch(self, fds: Sequence[int], given: Furnishing) -> Life:
        async with self._starting:
            if self._zygote is None or self._zygote.is_dead:
                self._zygote = await self._start()
        return await self._zygote.launch(fds, given, outside_id=self._next_id() if self._as_root else -1)

    async def aclose(self) -> None:
        if self._zygote is not None:
            await self._zygote.aclose()

    async def _start(self) -> ForkServer:
        runtime = self._runtime
        told = {
            "as_root": self._as_root, "mounts": dict(runtime.mounts), "python": runtime.python,
            "library_path": runtime.library_path, "preload": runtime.preload, "path": runtime.path,
        }  # fmt: skip
        # Root hands over to a user who owns nothing: mapped to itself, root would still be root to every file.
        lesser = NOBODY if os.geteuid() == 0 and not self._as_root else None
        return await ForkServer.start(runtime.python_here, "inside.zygote:enter", told, user=lesser)

    def _next_id(self) -> int:
        return FIRST_ID + os.getpid() % _WORKERS * _IDS_PER_WORKER + next(self._ids) % _IDS_PER_WORKER
