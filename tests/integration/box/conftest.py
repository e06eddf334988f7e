from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.box.boxes import WAYS, assert_clean, opened
from workers.sandboxes.box.box import NamespaceBox


@pytest.fixture(params=WAYS)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[NamespaceBox]:
    async with opened(request.param) as sandbox:
        yield sandbox
        await assert_clean(sandbox)
