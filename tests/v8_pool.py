"""A pool of real V8 isolates that the tests of one module share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from schemas.errors import Unavailable
from tests.servers import missing
from workers.sandboxes.v8 import V8Pool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def v8() -> AsyncIterator[V8Pool]:
    pool = V8Pool(hosts=1)
    try:
        await pool.start()
    except Unavailable as reason:
        missing(f"V8 ({reason})", "run scripts/setup")
        raise
    yield pool
    await pool.aclose()
