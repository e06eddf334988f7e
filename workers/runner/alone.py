"""`python -P -m workers.runner.alone JSON`: the engine as a plain process for one node; its worker is at descriptor 3.

What a box gives by its walls it has by itself: a guarded way out, and the sandbox that its worker's mode gives to code.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from workers.nodes.guarded import open_client
from workers.runner.boxed import serve_with
from workers.runner.inside import Inside, StartedLater, StartedPlain, registry_of
from workers.sandboxes.commands import NoBox
from workers.sandboxes.plain_node import PlainNodePool
from workers.sandboxes.v8 import V8Pool

_CHANNEL = 3


def main() -> None:
    """Serve the worker until it hangs up; whoever started this process then ends what is left."""
    given = json.loads(sys.argv[1])
    end = socket.socket(fileno=_CHANNEL)
    end.set_inheritable(False)
    uvloop.run(serve_with(end, open_here(**given)))


@asynccontextmanager
async def open_here(
    *, platform: str, hub: str, with_code: bool, allow_private_network: bool, http_places: int, custom: list[Any]
) -> AsyncIterator[Inside]:
    """Open what the node has: with isolates there is no place for commands, as in a worker of that mode."""
    async with AsyncExitStack() as opened:
        code = StartedLater(PlainNodePool(hosts=1) if platform == "node" else V8Pool(hosts=1))
        opened.push_async_callback(code.aclose)
        here = StartedPlain(None) if platform == "node" else None
        if here is not None:
            opened.push_async_callback(here.aclose)
        if with_code:
            code.start_soon()
        http = await opened.enter_async_context(open_client(allow_private_network=allow_private_network))
        yield Inside(
            code=code, here=here or NoBox(), alone=True, http=http, registry=registry_of(Path(hub), custom),
            http_places=asyncio.Semaphore(http_places),
        )  # fmt: skip


if __name__ == "__main__":
    main()
