"""Turns what a user wrote into what a sandbox runs, once: memory, then disk, then a build that one process does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Protocol, Self

from schemas.npm import NpmAllow
from schemas.outcome import ErrorKind
from schemas.settings import Settings
from workers.preparation.build import Build, Builder
from workers.preparation.bundler import Bundler, Platform
from workers.preparation.cache import DiskCache
from workers.preparation.entry import from_bytes, to_bytes
from workers.preparation.installs import Installs
from workers.preparation.memory import Memory, believed_until
from workers.preparation.npm import Npm
from workers.preparation.recipe import Flaw, Lasts, Preparation, Recipe
from workers.preparation.runtime import runtime_of

#: Characters of source and built code that one process keeps in memory.
MEMORY_CHARACTERS = 64_000_000


class Preparer(Protocol):
    """Makes code ready to run."""

    async def prepare(self, recipe: Recipe) -> Preparation:
        """Prepare the code, or say why not; never raises for what is wrong with the code."""
        ...

    async def aclose(self) -> None:
        """End whatever is being built."""
        ...


class NoPreparer:
    """For places where only plain JavaScript runs."""

    async def prepare(self, recipe: Recipe) -> Preparation:
        return Flaw(kind=ErrorKind.INTERNAL, message="nothing here can prepare TypeScript or packages", lasts=Lasts.NOT)

    async def aclose(self) -> None:
        return


class CachingPreparer:
    """Prepares each recipe once, even when many processes that share a home ask at the same time."""

    def __init__(
        self, build: Build, *, cache: DiskCache, runtime: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._build = build
        self._cache = cache
        self._runtime = runtime
        self._now = now
        self._memory = Memory(max_characters=MEMORY_CHARACTERS, now=now)
        self._under_way: dict[Recipe, asyncio.Task[Preparation]] = {}

    @classmethod
    def open(cls, settings: Settings, *, platform: Platform = "v8", allow: NpmAllow | None = None) -> Self:
        """Wire a preparer for this home; processes start when they are first needed.

        `allow` are the packages that code may import, if not those of the settings.
        """
        room = settings.code_cache_mb * 1_000_000
        folder = settings.home.absolute() / "cache"
        npm = Npm(scripts=settings.npm_scripts)
        builder = Builder(
            bundler=Bundler(platform=platform),
            installs=Installs(folder / "npm", install=npm.install, max_bytes=room),
            allow=settings.npm if allow is None else allow,
        )
        cache = DiskCache(folder / "code", max_bytes=room)
        return cls(builder, cache=cache, runtime=runtime_of(settings, platform))

    async def prepare(self, recipe: Recipe) -> Preparation:
        known = self._memory.get(recipe)
        if known is not None:
            return known
        task = self._under_way.get(recipe)
        if task is None:
            task = asyncio.create_task(self._prepare_once(recipe), name="prepare")
            self._under_way[recipe] = task
            task.add_done_callback(lambda _: self._under_way.pop(recipe))
        # One who waits may be cancelled; the others, and the next one, still want it.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._build.aclose()

    async def _prepare_once(self, recipe: Recipe) -> Preparation:
        key = recipe.key(self._runtime)
        found = self._recall(recipe, key)
        if found is not None:
            return found
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._cache.lock(key))
            except OSError as trouble:  # no disk to share what is built: everybody builds for themselves
                self._cache.warn(trouble)
            else:
                found = self._recall(recipe, key)  # somebody else may have built it while we waited
                if found is not None:
                    return found
            preparation = await self._build.build(recipe)
            await self._keep(recipe, key, preparation)
            return preparation

    def _recall(self, recipe: Recipe, key: str) -> Preparation | None:
        body = self._cache.read(key)
        found = from_bytes(body, self._now()) if body is not None else None
        if found is None:
            return None
        self._memory.put(recipe, *found)
        return found[0]

    async def _keep(self, recipe: Recipe, key: str, preparation: Preparation) -> None:
        if isinstance(preparation, Flaw) and preparation.lasts is Lasts.NOT:
            return
        until = believed_until(preparation, self._now())
        self._memory.put(recipe, preparation, until)
        await asyncio.to_thread(self._cache.write, key, to_bytes(preparation, until))
