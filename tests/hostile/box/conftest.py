"""One sandbox per way for all attacks of a module: what one of them broke, the next would meet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.box.boxes import WAYS, assert_clean, ignore_output, opened, python
from workers.sandboxes.box.base import Returned
from workers.sandboxes.box.box import NamespaceBox


@pytest_asyncio.fixture(params=WAYS, scope="module", loop_scope="module")
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[NamespaceBox]:
    async with opened(request.param) as box:
        yield box


@pytest_asyncio.fixture(loop_scope="module")
async def box(sandbox: NamespaceBox) -> AsyncIterator[NamespaceBox]:
    """The sandbox; after the attack nothing of it is left, and the next honest run succeeds."""
    yield sandbox
    await assert_clean(sandbox)
    honest = await sandbox.run_python(python("def main(a): return a + 1", inputs={"a": 1}), ignore_output)
    assert isinstance(honest, Returned)
    assert honest.value == 2
