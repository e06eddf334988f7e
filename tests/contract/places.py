"""Every place for commands and Python there is: boxes by each way, plain processes, and plain processes in a box."""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import schemas
import workers
from tests.integration.box.boxes import LIMITS, assert_clean, limits, opened
from tests.processes import children_of
from workers.sandboxes.box.base import (
    BoxedProgram,
    CommandOrder,
    CommandOutcome,
    Exited,
    OnOutput,
    ProgramOrder,
    PythonOrder,
    PythonOutcome,
    ignore_output,
)  # fmt: skip
from workers.sandboxes.box.open import WAYS
from workers.sandboxes.box.plain import open_plain
from workers.sandboxes.commands import CommandSandbox

sys.path.append(str(Path(__file__).parent / "placed"))

from placed import pack, read

BOXES = WAYS
PLACES = (*WAYS, "plain", "plain in a box")

_OURS, _LIBRARIES, _TESTS = "/opt/flo/app", "/opt/flo/site", "/opt/flo/placed"
_MOUNTS = {
    f"{_OURS}/workers": str(Path(workers.__file__).parent),
    f"{_OURS}/schemas": str(Path(schemas.__file__).parent),
    _LIBRARIES: sysconfig.get_path("purelib"),
    _TESTS: str(Path(__file__).parent / "placed"),
}


@asynccontextmanager
async def opened_place(name: str) -> AsyncIterator[CommandSandbox]:
    """Open a place, and prove that closing it leaves no process, folder, mount or cgroup."""
    match name:
        case "plain":
            async with _plain() as place:
                yield place
        case "plain in a box":
            async with _plain_in_a_box() as place:
                yield place
        case way:
            async with opened(way) as box:
                yield box
                await assert_clean(box)


@asynccontextmanager
async def _plain() -> AsyncIterator[CommandSandbox]:
    before = children_of(os.getpid())
    place = await open_plain(spares=0)
    home = place.way._home  # type: ignore[attr-defined]
    try:
        yield place
        servers = [pid for pid in children_of(os.getpid()) if pid not in before]
        assert [child for server in servers for child in children_of(server)] == []
        assert list(home.iterdir()) == []
    finally:
        await place.aclose()
    assert children_of(os.getpid()) == before
    assert not home.exists()


@asynccontextmanager
async def _plain_in_a_box() -> AsyncIterator[CommandSandbox]:
    async with opened("", mounts=_MOUNTS, path=(_OURS, _LIBRARIES, _TESTS), preload=("placed",)) as box:
        roomy = limits(**LIMITS | {"memory_mb": 512, "pids": 200, "open_files": 1024, "file_size_mb": 64, "tmp_mb": 64})
        order = ProgramOrder(entry="placed:serve", app="tests", limits=roomy)
        program = await box.start(order, ignore_output)
        place = await PlaceInABox.open(program)
        try:
            yield place
        finally:
            ended = await place.aclose()
        # It closed by itself, which it does only when nothing in it is left.
        assert isinstance(ended, Exited), ended
        assert ended.code == 0, ended
        assert ended.stdout.endswith(b"closed\n"), ended


class PlaceInABox:
    """Speaks to `placed.py`."""

    def __init__(self, program: BoxedProgram, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._program = program
        self._reader = reader
        self._writer = writer
        self._numbers = iter(range(10**6))
        self._waiting: dict[int, tuple[asyncio.Future[Any], OnOutput]] = {}
        self._hearing = asyncio.create_task(self._hear())

    @classmethod
    async def open(cls, program: BoxedProgram) -> PlaceInABox:
        return cls(program, *await asyncio.open_connection(sock=program.channel.dup()))

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        found: CommandOutcome = await self._ask("run", order, on_output)
        return found

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        found: PythonOutcome = await self._ask("run_python", order, on_output)
        return found

    async def aclose(self) -> CommandOutcome:
        self._writer.write_eof()
        ended = await self._program.wait()
        await self._hearing
        self._writer.close()
        return ended

    async def _ask(self, what: str, order: object, on_output: OnOutput) -> Any:
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (answer, on_output)
        self._writer.write(pack(number, what, order))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            self._writer.write(pack(number, "cancel", None))
            await asyncio.wait([answer])  # confirmed, as the place itself does
            raise

    async def _hear(self) -> None:
        try:
            while True:
                number, kind, value = await read(self._reader)
                answer, on_output = self._waiting[number]
                match kind:
                    case "line":
                        on_output(*value)
                    case "done":
                        answer.set_result(value[0])
                    case "raised":
                        answer.set_exception(value[0])
                    case _:
                        answer.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            for answer, _ in self._waiting.values():
                answer.cancel()
