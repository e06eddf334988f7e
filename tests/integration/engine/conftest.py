"""Real servers for the engine: Node hosts that run V8, and an HTTP server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loopback_site import Site, serving

from tests.v8_pool import v8

__all__ = ["site", "v8"]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site
