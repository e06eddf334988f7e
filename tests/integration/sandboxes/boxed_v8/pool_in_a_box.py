"""What runs in the box: a pool of Node hosts, as an engine in there would have one."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta

from workers.sandboxes.base import CodeOrder, CodeReturned
from workers.sandboxes.plain_node import PlainNodePool
from workers.sandboxes.v8 import V8Pool

POOLS = {"V8Pool": V8Pool, "PlainNodePool": PlainNodePool}


def serve(channel: int, *, kind: str, source: str) -> int:
    with socket.socket(fileno=channel) as worker:
        worker.sendall(json.dumps(asyncio.run(_work(kind, source))).encode())
    return 0


async def _work(kind: str, source: str) -> object:
    order = CodeOrder(source=source, inputs={"n": 21}, app="shop", timeout=timedelta(seconds=30), memory_mb=64)
    async with POOLS[kind](hosts=1) as pool:
        seen = pool.resident_mb() > 0
        outcome = await pool.run(order, lambda level, message: None)
        return [outcome.value if isinstance(outcome, CodeReturned) else outcome.error.message, seen]
