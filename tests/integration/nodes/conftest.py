"""The best place for commands and Python that this machine has."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.integration.box.boxes import assert_clean, opened
from workers.sandboxes.box.box import NamespaceBox

sys.path.append(str(Path(__file__).parent))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[NamespaceBox]:
    async with opened("") as box:
        yield box
        await assert_clean(box)
