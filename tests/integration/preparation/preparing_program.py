"""A process that prepares one piece of code when it is told to, and counts the builds that it does itself.

argv: one JSON object {"home", "builds", "source", "dependencies"?, "hang"?, "full_disk"?, "times"?}. It prints `ready`,
waits for a line, prints `asking`, and at last what came of it as JSON. Packages are made up on the spot.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from schemas.npm import NpmAllow
from workers.preparation.build import Builder
from workers.preparation.bundler import Bundler
from workers.preparation.cache import DiskCache
from workers.preparation.installs import Installs
from workers.preparation.preparer import CachingPreparer
from workers.preparation.recipe import Preparation, Recipe

PACKAGE = {"package.json": '{"name": "tiny", "version": "1.0.0"}', "index.js": "module.exports = 'tiny'"}


class CountedBuilds:
    """Builds for real, and leaves a mark for each."""

    def __init__(self, order: dict[str, Any], builder: Builder) -> None:
        self._order = order
        self._builder = builder

    async def build(self, recipe: Recipe) -> Preparation:
        mark(self._order, "build")
        if self._order.get("hang") == "build":
            await hang()
        return await self._builder.build(recipe)

    async def aclose(self) -> None:
        await self._builder.aclose()


def mark(order: dict[str, Any], what: str) -> None:
    """Write a line in one step, which the kernel keeps apart from those of other processes."""
    handle = os.open(order["builds"], os.O_WRONLY | os.O_APPEND)
    os.write(handle, f"{what} {os.getpid()}\n".encode())
    os.close(handle)


async def hang() -> NoReturn:
    say("hanging")
    await asyncio.Event().wait()
    raise AssertionError


def say(what: str) -> None:
    print(what, flush=True)


async def main(order: dict[str, Any]) -> None:
    async def install(folder: Path, *specs: str, cache: Path | None = None) -> None:
        mark(order, "install")
        home = folder / "node_modules" / "tiny"
        home.mkdir(parents=True)
        (home / "package.json").write_text(PACKAGE["package.json"])
        if order.get("hang") == "install":
            await hang()
        (home / "index.js").write_text(PACKAGE["index.js"])

    cache = Path(order["home"]) / "cache"
    installs = Installs(cache / "npm", install=install, max_bytes=10**9)
    builds = CountedBuilds(order, Builder(bundler=Bundler(), installs=installs, allow=NpmAllow.parse("*")))
    preparer = CachingPreparer(builds, cache=DiskCache(cache / "code", max_bytes=10**9), runtime="test")
    recipe = Recipe(order["source"], "typescript", tuple(order.get("dependencies", {}).items()))
    if order.get("full_disk"):
        tempfile.gettempdir()  # tries by writing, once
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    times = order.get("times", 1)
    say("ready")
    sys.stdin.readline()
    say("asking")
    made = [await preparer.prepare(replace(recipe, source=recipe.source + "\n" * more)) for more in range(times)]
    await preparer.aclose()
    say(json.dumps(asdict(made[0])))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
