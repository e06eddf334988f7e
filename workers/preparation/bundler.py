"""The resident esbuild: a Node process that is started for the first build and ended after a rest without any."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from schemas.errors import Unavailable
from schemas.json import JSONObject
from workers.sandboxes.node.host import NodeHost
from workers.sandboxes.node.jail import NoJail
from workers.sandboxes.node.program import HostProgram
from workers.sandboxes.node.setup import find_node

#: Where what is built will run: in plain V8, or in Node, which has modules of its own.
Platform: TypeAlias = Literal["v8", "node"]

#: The Node program that builds, with its own package.json and node_modules.
FOLDER = Path(__file__).parent / "node"
#: Longest time that one build may take; most take milliseconds.
LONGEST_BUILD = timedelta(seconds=60)
#: After so long without a build the process is ended, as it holds some 80 MB.
REST = timedelta(minutes=2)


class BuildLost(Exception):
    """The build did not come to an end, through no fault of the code."""


@dataclass(frozen=True, slots=True)
class BuildMistake:
    """What esbuild has against the code."""

    message: str
    line: int | None
    column: int | None
    #: The file of a package in which it is; None in the user's own code.
    file: str | None
    #: The text itself is wrong, not what it imports.
    is_syntax: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a build made; code is empty when there are mistakes."""

    code: str
    source_map: str
    mistakes: tuple[BuildMistake, ...]


class Bundler:
    """Builds code, in one event loop. Nothing runs before the first build."""

    def __init__(
        self,
        *,
        platform: Platform = "v8",
        folder: Path = FOLDER,
        rest: timedelta = REST,
        longest: timedelta = LONGEST_BUILD,
    ) -> None:
        self._platform = platform
        self._folder = folder
        self._rest = rest.total_seconds()
        self._longest = longest.total_seconds()
        #: The one that builds; None while it rests.
        self._host: NodeHost | None = None
        #: All that are not yet confirmed dead.
        self._living: set[NodeHost] = set()
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._ids = count(1)
        self._resting: asyncio.TimerHandle | None = None

    async def build(
        self,
        *,
        dependencies: tuple[str, ...] = (),
        folder: Path | None = None,
        source: str | None = None,
        loader: str = "js",
        entry: str | None = None,
    ) -> Bundle:
        """Make one ES module of `source`, or of the package `entry` in `folder`; packages are in its node_modules.

        Raises BuildLost when the process died or took too long, Unavailable when esbuild is not installed.
        """
        number = next(self._ids)
        order: JSONObject = {
            "type": "build",
            "id": number,
            "platform": self._platform,
            "source": source,
            "loader": loader,
            "entry": entry,
            "folder": str(folder) if folder is not None else None,
            "dependencies": list(dependencies),
        }
        host = await self._started()
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            host.send(orjson.dumps(order) + b"\n")
            async with asyncio.timeout(self._longest):
                return _bundle(await answer)
        except TimeoutError:
            host.kill()
            raise BuildLost(f"esbuild took longer than {self._longest:g} s") from None
        finally:
            del self._waiting[number]
            self._rest_later()

    @property
    def is_awake(self) -> bool:
        """Whether the process runs."""
        return self._host is not None

    async def aclose(self) -> None:
        """End the process and return when it is confirmed dead."""
        if self._resting is not None:
            self._resting.cancel()
        self._host = None
        await asyncio.gather(*(host.aclose() for host in tuple(self._living)))

    async def _started(self) -> NodeHost:
        async with self._starting:
            if self._resting is not None:
                self._resting.cancel()
            if self._host is None:
                if not (self._folder / "node_modules" / "esbuild" / "package.json").is_file():
                    raise Unavailable(f"The Node package esbuild is missing from {self._folder}: run scripts/setup")
                host = NodeHost(on_message=self._heard, on_death=self._buried)
                try:
                    program = HostProgram(name="esbuild", folder=self._folder, main="bundler.mjs")
                    await host.start(program, jail=NoJail(), node=find_node())
                except OSError as trouble:
                    raise BuildLost(f"esbuild could not be started: {trouble.strerror}") from None
                self._living.add(host)
                self._host = host
            return self._host

    def _heard(self, host: NodeHost, message: dict[str, Any]) -> None:
        answer = self._waiting.get(message["id"])
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _buried(self, host: NodeHost) -> None:
        self._living.discard(host)
        if self._host is not host:
            return
        self._host = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(BuildLost(f"esbuild ended with code {host.exit_code} during the build"))

    def _rest_later(self) -> None:
        if self._waiting or self._host is None:
            return
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(self._rest, self._go_to_rest)

    def _go_to_rest(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            host.kill()


def _bundle(answer: Mapping[str, Any]) -> Bundle:
    mistakes = tuple(
        BuildMistake(each["message"], each["line"], each["column"], each["file"], each["is_syntax"])
        for each in answer["problems"]
    )
    return Bundle(answer.get("code", ""), answer.get("map", ""), mistakes)
