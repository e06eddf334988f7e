"""The pool of Node hosts that run V8 isolates."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from workers.sandboxes.node.jail import Jail
from workers.sandboxes.node.pool import GRACE, SLOTS, NodePool
from workers.sandboxes.node.program import HostProgram
from workers.sandboxes.v8.setup import HOST_FOLDER, check_isolated_vm

#: Ready isolates that a host keeps for each memory limit, about 2 MB each.
STOCK = 4
#: Memory limit for which isolates are made before the first run asks.
WARM_MEMORY_MB = 128
#: isolated-vm needs the first. The second is for the host's own heap, through which inputs and results pass; isolates
#: keep to their own limits.
FLAGS = ("--no-node-snapshot", "--max-old-space-size=1024", "--no-warnings")

_NO_NETWORK = "code has no network: use an http.request node"
_NO_NODE = "code runs in plain V8, without what Node and browsers add"
_NO_PACKAGES = 'npm packages must stand in the node\'s "dependencies", and Node modules are not available'
HINTS = {
    **dict.fromkeys(["fetch", "XMLHttpRequest", "WebSocket"], _NO_NETWORK),
    **dict.fromkeys(["Buffer", "URL", "URLSearchParams", "crypto", "document", "process", "window"], _NO_NODE),
    **dict.fromkeys(["TextDecoder", "TextEncoder", "atob", "btoa", "structuredClone", "performance"], _NO_NODE),
    **dict.fromkeys(["require", "module", "exports"], _NO_PACKAGES),
}


class V8Pool(NodePool):
    """Runs each order in a fresh V8 isolate of a warm host. `open.open_v8` opens one with jails around its hosts."""

    def __init__(
        self,
        *,
        hosts: int = 0,
        node: Path | None = None,
        slots: int = SLOTS,
        stock: int = STOCK,
        warm_memory_mb: int = WARM_MEMORY_MB,
        grace: timedelta = GRACE,
        jail: Jail | None = None,
        folder: Path = HOST_FOLDER,
    ) -> None:
        """Prepare a pool of `hosts` processes (0: one per core), each in `jail`, which is closed with the pool.

        `node` and `folder` are for places where neither the wheel's Node nor this package's folder can be found.
        """
        program = HostProgram(
            name="V8",
            folder=folder,
            flags=FLAGS,
            # A second fence, for code that has already broken out of its isolate.
            is_fenced=True,
            settings={"stock": stock, "warm_memory_mb": warm_memory_mb},
        )
        super().__init__(program, hosts=hosts, node=node, slots=slots, grace=grace, jail=jail, hints=HINTS)

    async def start(self) -> None:
        """Start every host at once; raise Unavailable with the fix if Node or isolated-vm is missing."""
        check_isolated_vm(self._program.folder)
        await super().start()
