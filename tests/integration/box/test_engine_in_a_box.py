"""A Python of ours that lives in a box: an entry that the zygote has imported."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.box.boxes import WAYS, ignore_output, limits, opened
from workers.sandboxes.box.base import Exited, ProgramOrder
from workers.sandboxes.box.box import NamespaceBox

_INSIDE = "/opt/flo/boxed"
_MOUNTS = {_INSIDE: str(Path(__file__).parent / "boxed")}


async def served(box: NamespaceBox) -> tuple[bytes, Exited]:
    order = ProgramOrder(entry="boxed_engine:serve", inputs={"greeting": "hello"}, app="tests", limits=limits())
    program = await box.start(order, ignore_output)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(program.channel, b"flo")
    said = await loop.sock_recv(program.channel, 100)
    found = await program.wait()
    assert isinstance(found, Exited)
    return said, found


@pytest.mark.parametrize("way", WAYS)
async def test_an_entry_talks_to_the_worker_and_ends_with_its_code(way: str) -> None:
    async with opened(way, mounts=_MOUNTS, path=(_INSIDE,)) as box:
        said, found = await served(box)
    assert said.startswith(b"hello flo")
    assert (found.code, found.stderr) == (4, b"served\n")


@pytest.mark.parametrize("way", ["zygote", "zygote-userns"])
async def test_what_is_preloaded_is_not_imported_again(way: str) -> None:
    async with opened(way, mounts=_MOUNTS, path=(_INSIDE,), preload=("boxed_engine",)) as box:
        said, _ = await served(box)
    assert said == b"hello flo, True"
