"""Real servers for the engine: Node hosts that run V8, and an HTTP server on loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from loopback_site import Site, serving

from schemas.errors import Unavailable
from workers.sandboxes.v8 import V8Pool


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def v8() -> AsyncIterator[V8Pool]:
    pool = V8Pool(hosts=1)
    try:
        await pool.start()
    except Unavailable as missing:
        if "CI" in os.environ:
            raise
        pytest.skip(str(missing))
    yield pool
    await pool.aclose()
