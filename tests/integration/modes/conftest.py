from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from in_mode import InMode, opened

from schemas.settings import ExecutionMode


@pytest.fixture(params=list(ExecutionMode))
async def any_mode(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[InMode]:
    async with opened(request.param, tmp_path) as worker:
        yield worker


@pytest.fixture
async def per_run(tmp_path: Path) -> AsyncIterator[InMode]:
    async with opened(ExecutionMode.SANDBOX_PROCESS, tmp_path) as worker:
        yield worker


@pytest.fixture
async def per_app(tmp_path: Path) -> AsyncIterator[InMode]:
    async with opened(ExecutionMode.SANDBOX_CODE_AND_PROCESS, tmp_path) as worker:
        yield worker
