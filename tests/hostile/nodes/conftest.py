"""One place per kind for all attacks of a module, driven through the engine as flows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.append(str(Path(__file__).parents[2] / "integration" / "nodes"))

from process_flows import run_node

from tests.integration.box.boxes import WAYS, assert_clean, opened
from workers.sandboxes.box.box import NamespaceBox


@pytest_asyncio.fixture(params=WAYS, scope="module", loop_scope="module")
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[NamespaceBox]:
    """The sandbox; closing it proves that no process, cgroup, mount or folder is left."""
    async with opened(request.param) as box:
        yield box


@pytest_asyncio.fixture(loop_scope="module")
async def box(sandbox: NamespaceBox) -> AsyncIterator[NamespaceBox]:
    """The sandbox; after the attack nothing of it is left, and the next honest runs succeed."""
    yield sandbox
    await assert_clean(sandbox)
    honest = {"a": 1}
    python = await run_node(sandbox, "code.python", {"code": "def main(a): return a + 1"}, honest)
    shell = await run_node(sandbox, "shell.exec", {"command": "echo fine"})
    assert (python.result, shell.result["stdout"]) == ({"output": 2}, "fine")
