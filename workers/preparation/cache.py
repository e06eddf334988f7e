"""What was built once, on disk: one file to a key, published whole by a rename, the one used longest ago evicted first.

Safe for any number of processes at once; without a disk that can be written it keeps nothing, and says so once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import structlog

from workers.preparation.locks import FileLock

log = structlog.get_logger()

#: Bytes of a file's first line: the SHA-256 of all that follows.
_SEAL = 64
#: After how much growth, as a share of the limit, a process looks whether something must go.
_LOOK_EVERY = 1 / 16
#: How full an eviction leaves the cache.
_LEAVE = 0.8


class DiskCache:
    """Bytes by key. A file that is broken or cut short counts as not there."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        #: What this process has added since it last looked; at first unknown.
        self._grown = max_bytes
        self._warned = False

    def lock(self, key: str) -> FileLock:
        """Make the lock that whoever builds this key should hold."""
        return FileLock(self._folder / "locks" / key)

    def read(self, key: str) -> bytes | None:
        """Read what was written under the key, and note that it is in use."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            seal, body = content[:_SEAL], content[_SEAL + 1 :]
            if hashlib.sha256(body).hexdigest().encode() != seal:
                path.unlink()
                return None
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as trouble:
            self.warn(trouble)
            return None
        return body

    def write(self, key: str, body: bytes) -> None:
        """Publish the body in one step; give up, with a warning, where the disk won't have it."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
                Path(draft).replace(path)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
        except OSError as trouble:
            self.warn(trouble)
            return
        self._grown += len(body)
        if self._grown > self._max_bytes * _LOOK_EVERY:
            self._grown = 0
            self._evict()

    def warn(self, trouble: OSError) -> None:
        """Say once that the cache does not work here."""
        if not self._warned:
            self._warned = True
            log.warning("code_cache.unusable", folder=str(self._folder), reason=trouble.strerror or str(trouble))

    def _path(self, key: str) -> Path:
        return self._folder / "entries" / key[:2] / key

    def _evict(self) -> None:
        """Remove the files used longest ago until there is room; two processes at it only remove a little more."""
        files: list[tuple[float, int, Path]] = []
        for path in (self._folder / "entries").glob("*/*"):
            with contextlib.suppress(OSError):
                state = path.stat()
                files.append((state.st_mtime, state.st_size, path))
        size = sum(each for _, each, _ in files)
        if size <= self._max_bytes:
            return
        for _, each, path in sorted(files):
            if size <= self._max_bytes * _LEAVE:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                size -= each
