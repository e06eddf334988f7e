"""One worker per mode for all attacks of a module; closing it proves that no process, mount or cgroup is left."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.append(str(Path(__file__).parents[2] / "integration" / "modes"))

from in_mode import InMode, opened

from schemas.settings import ExecutionMode

_ISOLATES = [ExecutionMode.SANDBOX_CODE_ONLY, ExecutionMode.SANDBOX_CODE_AND_PROCESS]


async def prove_honest(worker: InMode) -> None:
    """Run something honest, on the same worker and for the same app."""
    assert (await worker.javascript("export default () => ({fine: [1, {a: 'ü'}]})"))["fine"] == [1, {"a": "ü"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs_worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InMode]:
    home = tmp_path_factory.mktemp("home")
    async with opened(ExecutionMode.SANDBOX_PROCESS, home, FLO_BOX_MEMORY_MB="400") as worker:
        yield worker


@pytest_asyncio.fixture(loop_scope="module")
async def per_run(runs_worker: InMode) -> AsyncIterator[InMode]:
    """A worker with a box for each run; after the attack the next honest run succeeds."""
    yield runs_worker
    await prove_honest(runs_worker)


@pytest_asyncio.fixture(params=_ISOLATES, scope="module", loop_scope="module")
async def isolates_worker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InMode]:
    async with opened(request.param, tmp_path_factory.mktemp("home")) as worker:
        yield worker


@pytest_asyncio.fixture(loop_scope="module")
async def isolates(isolates_worker: InMode) -> AsyncIterator[InMode]:
    """A worker whose code runs in isolates; after the attack the next honest run succeeds."""
    yield isolates_worker
    await prove_honest(isolates_worker)
