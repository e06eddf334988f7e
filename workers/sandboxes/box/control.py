"""The worker's end of the socket to a box's first process, which is ours; still, what it says is bounded."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workers.sandboxes.box.inside import frames

_CHUNK = 1 << 18
_LONGEST_HEAD = 4 << 20


@dataclass(slots=True)
class LastWords:
    """What pid 1 said before it ended: nothing if it was killed."""

    head: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""


class Control:
    """Sends the task, takes the proxy's listening socket if one comes, and reads the last words."""

    def __init__(
        self, end: socket.socket, task: bytes, *, most_bytes: int, on_listener: Callable[[socket.socket], None] | None
    ) -> None:
        self._socket = end
        self._loop = asyncio.get_running_loop()
        self._most = most_bytes + _LONGEST_HEAD
        self._on_listener = on_listener
        self._left = memoryview(task)
        self._heard = bytearray()
        self.ended: asyncio.Future[LastWords] = self._loop.create_future()
        end.setblocking(False)
        self._loop.add_reader(end, self._read)
        self._write()

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[self._socket.send(self._left) :]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._write)
            return
        except OSError:
            self._left = memoryview(b"")  # it is gone; the reader learns the same
        self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_CHUNK, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fd = array.array("i", content[:4])[0]
                if self._on_listener is None or self._heard:
                    os.close(fd)
                else:
                    self._on_listener(socket.socket(fileno=fd))
                    self._on_listener = None
                    data = data[1:]
                    if not data:
                        return
        self._heard += data
        if not data or len(self._heard) > self._most:
            self.close()

    def close(self) -> None:
        if self.ended.done():
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self.ended.set_result(_parse(bytes(self._heard)))


def _parse(heard: bytes) -> LastWords:
    if len(heard) < frames.PREFIX:
        return LastWords()
    head, body = frames.lengths(heard[: frames.PREFIX])
    start = frames.PREFIX
    if len(heard) != start + head + body:
        return LastWords()
    return LastWords(json.loads(heard[start : start + head]), heard[start + head :])
