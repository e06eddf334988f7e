"""The home (`$FLO_HOME`): where the embedded stack keeps its files, and where a command finds that stack."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from flo.errors import Mistake


class Endpoint(TypedDict):
    """Where a running `flo dev` answers."""

    api: str
    flower: str | None
    #: The process that wrote this; the file means nothing once that process is gone.
    pid: int


@dataclass(frozen=True, slots=True)
class Home:
    path: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Home:
        """Take the home from FLO_HOME, else `.flo` in this folder."""
        return cls(Path(environ.get("FLO_HOME") or ".flo").absolute())

    @property
    def key_file(self) -> Path:
        return self.path / "api_key"

    @property
    def redis_folder(self) -> Path:
        return self.path / "redis"

    @property
    def _endpoint_file(self) -> Path:
        return self.path / "endpoint.json"

    @property
    def _lock_file(self) -> Path:
        return self.path / "dev.lock"

    def key(self) -> str | None:
        """Read the admin key that the embedded API wrote; None when there is none."""
        try:
            return self.key_file.read_text().strip() or None
        except OSError:
            return None

    def endpoint(self) -> Endpoint | None:
        """Tell where the `flo dev` of this home answers; None when none is running."""
        try:
            endpoint: Endpoint = json.loads(self._endpoint_file.read_bytes())
            os.kill(endpoint["pid"], 0)
        except PermissionError:  # it lives, under another user
            return endpoint
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return endpoint

    def announce(self, endpoint: Endpoint) -> None:
        """Write the endpoint file in one step, so that nobody reads half of it."""
        handle, name = tempfile.mkstemp(dir=self.path, prefix=".endpoint-")
        with os.fdopen(handle, "w") as file:
            json.dump(endpoint, file)
        Path(name).replace(self._endpoint_file)

    def withdraw(self) -> None:
        """Remove the endpoint file."""
        self._endpoint_file.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folders and hold their lock: one `flo dev` at a time lives in a home. Mistake when it can't be."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = self._lock()
            self.redis_folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as refusal:
            raise Mistake(
                f"the home {self.path} can't be written ({refusal.strerror}): "
                "choose another folder with --home or FLO_HOME"
            ) from None
        try:
            yield
        finally:
            self._lock_file.unlink(missing_ok=True)
            os.close(handle)

    def _lock(self) -> int:
        while True:
            handle = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The last holder may have removed the file between our two calls; then this lock guards nothing.
                if os.path.samestat(os.fstat(handle), self._lock_file.stat()):
                    os.ftruncate(handle, 0)
                    os.write(handle, str(os.getpid()).encode())
                    return handle
            except BlockingIOError:
                holder = os.read(handle, 32).decode().strip()
                os.close(handle)
                raise Mistake(
                    f"another `flo dev` (process {holder or 'unknown'}) is using the home {self.path}: "
                    "stop it, or choose another folder with --home"
                ) from None
            except FileNotFoundError:
                pass
            os.close(handle)
