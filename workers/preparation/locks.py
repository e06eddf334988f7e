"""A lock between processes that dies with its holder."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

#: Pauses between tries for a lock that somebody holds, in seconds; the last is repeated.
_PAUSES = (0.002, 0.005, 0.01, 0.02, 0.05)


class FileLock:
    """Holds `flock(2)` on a file, which is there only while somebody holds it or waits for it.

    The kernel lets go when the holder's process ends, however it ends. Raises OSError where no file can be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    async def __aenter__(self) -> Self:
        tries = 0
        while not self.take():
            await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self) -> bool:
        """Take the lock if it is free now."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our two calls; then this lock guards nothing.
            if os.path.samestat(os.fstat(handle), self._path.stat()):
                self._handle = handle
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        return False

    def release(self) -> None:
        """Let go, and leave no file behind."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            pass  # the folder can't be written any more; what holds is the handle
        finally:
            os.close(handle)
