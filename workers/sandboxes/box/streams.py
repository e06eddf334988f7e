"""The pipes of a box, read and written from the event loop without a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_CHUNK = 65536


class Reader:
    """Reads a pipe to its end; `ended` is done at end of file."""

    def __init__(self, fd: int, take: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._take = take
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.close()

    def close(self) -> None:
        if not self.ended.done():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.ended.set_result(None)


class Writer:
    """Writes bytes into a pipe and closes it; stops when nobody reads."""

    def __init__(self, fd: int, data: bytes) -> None:
        self._fd = fd
        self._left = memoryview(data)
        self._loop = asyncio.get_running_loop()
        self._closed = False
        os.set_blocking(fd, False)
        self._write()
        if not self._closed:
            self._loop.add_writer(fd, self._write)

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._fd, self._left) :]
        except BlockingIOError:
            return
        except OSError:
            pass  # nobody reads: a program need not look at its stdin
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_writer(self._fd)
            os.close(self._fd)


class Lines:
    """Cuts a stream into lines for a listener; a line longer than a chunk comes in pieces."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._partial = b""

    def take(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._tell(line)
        if len(self._partial) > _CHUNK:
            self.end()

    def end(self) -> None:
        if self._partial:
            self._tell(self._partial)
            self._partial = b""
