"""Installed packages on disk: one folder to a set of dependencies, named by what is in it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import orjson
import structlog

from schemas.json import loads
from workers.preparation.locks import FileLock
from workers.preparation.npm_words import NpmFailure

log = structlog.get_logger()

Dependencies: TypeAlias = tuple[tuple[str, str], ...]

#: Written last into a folder that is whole: how many files it has and how many bytes.
_MARK = ".flo-install.json"


class Install(Protocol):
    async def __call__(self, folder: Path, *specs: str, cache: Path | None = None) -> None:
        """Install what `folder/package.json` names into `folder/node_modules`; raise NpmFailure with the reason."""
        ...


class Installs:
    """Folders of installed packages, which processes share; the ones used longest ago are evicted."""

    def __init__(self, folder: Path, *, install: Install, max_bytes: int) -> None:
        self._folder = folder
        self._install = install
        self._max_bytes = max_bytes
        self._warned = False

    @asynccontextmanager
    async def hold(self, dependencies: Dependencies) -> AsyncIterator[Path]:
        """Give the folder in whose node_modules the packages are; nobody changes or removes it meanwhile.

        Raises NpmFailure. Where nothing can be kept, the packages are there for this once.
        """
        key = hashlib.sha256(orjson.dumps(sorted(dependencies))).hexdigest()
        async with contextlib.AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._lock(key))
                folder = await self._ready(key, dependencies)
            except (OSError, NpmFailure) as trouble:
                if isinstance(trouble, NpmFailure) and not trouble.is_disk:
                    raise
                self._warn(trouble)
                folder = await self._for_once(held, dependencies)
            yield folder

    async def _ready(self, key: str, dependencies: Dependencies) -> Path:
        home = self._folder / key
        if await asyncio.to_thread(_is_whole, home):
            os.utime(home)
            return home
        for left in (home, *self._folder.glob(f"{key}.*")):  # broken, or of a process that died: we hold the lock
            await asyncio.to_thread(_remove, left)
        draft = Path(tempfile.mkdtemp(dir=self._folder, prefix=f"{key}."))
        try:
            await self._fill(draft, dependencies)
            await asyncio.to_thread(draft.rename, home)
        except BaseException:
            await asyncio.to_thread(_remove, draft)
            raise
        await asyncio.to_thread(self._evict, keep=key)
        return home

    async def _for_once(self, held: contextlib.AsyncExitStack, dependencies: Dependencies) -> Path:
        try:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="flo-npm-")))
            (folder / "install").mkdir()
            await self._fill(folder / "install", dependencies, cache=folder / "cache")
        except OSError as trouble:
            raise NpmFailure("ENOSPC", f"nothing can be written on this machine: {trouble.strerror}") from None
        return folder / "install"

    async def _fill(self, folder: Path, dependencies: Dependencies, cache: Path | None = None) -> None:
        manifest = {"name": "flo-code", "private": True, "dependencies": dict(dependencies)}
        (folder / "package.json").write_bytes(orjson.dumps(manifest))
        await self._install(folder, cache=cache)
        (folder / _MARK).write_bytes(orjson.dumps(await asyncio.to_thread(_measure, folder)))

    def _lock(self, key: str) -> FileLock:
        return FileLock(self._folder / "locks" / key)

    def _warn(self, trouble: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning("npm_cache.unusable", folder=str(self._folder), reason=str(trouble))

    def _evict(self, *, keep: str) -> None:
        """Remove the folders used longest ago until there is room, except those that somebody holds."""
        for left in self._folder.glob("*.*"):  # of processes that died
            lock = self._lock(left.name.partition(".")[0])
            if left.name.partition(".")[0] != keep and lock.take():
                try:
                    _remove(left)
                finally:
                    lock.release()
        homes = [home for home in self._folder.iterdir() if (home / _MARK).is_file()]
        sizes = {home: _marked(home).get("bytes", 0) for home in homes}
        size = sum(sizes.values())
        for home in sorted(homes, key=_used):
            if size <= self._max_bytes:
                return
            lock = self._lock(home.name)
            if home.name != keep and lock.take():
                try:
                    _remove(home)
                finally:
                    lock.release()
                size -= sizes[home]


def _is_whole(home: Path) -> bool:
    return home.is_dir() and _marked(home) == _measure(home)


def _marked(home: Path) -> dict[str, int]:
    with contextlib.suppress(OSError, ValueError):
        marked = loads((home / _MARK).read_bytes())
        if isinstance(marked, dict):
            return marked
    return {}


def _measure(home: Path) -> dict[str, int]:
    """Count what is there; enough to see a file that is missing or cut short."""
    files = [Path(folder) / name for folder, _, names in os.walk(home) for name in names if name != _MARK]
    return {"files": len(files), "bytes": sum(file.lstat().st_size for file in files)}


def _used(home: Path) -> float:
    with contextlib.suppress(OSError):
        return home.stat().st_mtime
    return 0.0


def _remove(folder: Path) -> None:
    """Remove a folder so that nobody sees half of it."""
    if not folder.exists():
        return
    doomed = folder.with_name(f"{folder.name}.{os.getpid()}.doomed") if folder.suffix == "" else folder
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
