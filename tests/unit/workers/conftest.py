from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dispatching import Rig

from dispatch.store.session import Store


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    store = await Store.open(f"sqlite:///{tmp_path / 'flo.db'}")
    yield Rig(store)
    await store.aclose()
