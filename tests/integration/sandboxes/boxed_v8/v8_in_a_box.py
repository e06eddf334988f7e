"""What runs in the box: a pool of V8 hosts, as an engine in there would have one."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta

from workers.sandboxes.base import CodeOrder, CodeReturned
from workers.sandboxes.v8 import V8Pool


def serve(channel: int, *, source: str) -> int:
    with socket.socket(fileno=channel) as worker:
        worker.sendall(json.dumps(asyncio.run(_work(source))).encode())
    return 0


async def _work(source: str) -> object:
    order = CodeOrder(source=source, inputs={"n": 21}, app="shop", timeout=timedelta(seconds=30), memory_mb=64)
    async with V8Pool(hosts=1) as pool:
        seen = pool.resident_mb() > 0
        outcome = await pool.run(order, lambda level, message: None)
        return [outcome.value if isinstance(outcome, CodeReturned) else outcome.error.message, seen]
