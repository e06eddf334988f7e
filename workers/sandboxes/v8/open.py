"""Open the V8 sandbox with the best jail around its hosts that this machine allows."""

from __future__ import annotations

import structlog

from schemas.errors import Unavailable
from workers.sandboxes.node.boxed import BoxJail
from workers.sandboxes.v8.pool import V8Pool
from workers.sandboxes.v8.setup import HOST_FOLDER, check_isolated_vm

log = structlog.get_logger()


async def open_v8(*, hosts: int = 0, way: str = "") -> V8Pool:
    """Start a pool of `hosts` processes (0: one per core), each in a box of its own, or without where no box works.

    `way` asks for one way of making boxes (`box.open.WAYS`) and fails with Unavailable where that one does not work;
    so does every call where Node or isolated-vm is missing. `aclose` of the pool closes the boxes too, and
    `V8Pool.jail` names the way, empty for none. Not for use inside a box: make a `V8Pool` there.
    """
    check_isolated_vm()
    try:
        pool = V8Pool(hosts=hosts, jail=await BoxJail.open(HOST_FOLDER, way=way))
        await pool.start()
    except Unavailable as reason:
        if way:
            raise
        log.warning("v8.unjailed", reason=str(reason))
        pool = V8Pool(hosts=hosts)
        await pool.start()
    return pool
