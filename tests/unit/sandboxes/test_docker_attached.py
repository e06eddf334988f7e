from __future__ import annotations

import asyncio
import socket

from workers.sandboxes.docker.attached import Attached


async def test_an_answer_that_comes_when_the_input_has_ended_is_not_sent() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    attached = await Attached.open(ours, lambda stream, data: None)
    attached.write(b"before")

    attached.end_input()
    attached.write(b"after")

    loop = asyncio.get_running_loop()
    assert await loop.sock_recv(theirs, 100) == b"before"
    assert await loop.sock_recv(theirs, 100) == b""
    attached.close()
    theirs.close()
