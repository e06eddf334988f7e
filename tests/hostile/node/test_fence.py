"""A host that was taken over where no box can be made: Node's own permission model is all that is left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.node.conftest import Attack, attacking, broken_pool
from workers.sandboxes.node.jail import NoJail

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fenced() -> AsyncIterator[Attack]:
    async with broken_pool(NoJail(), is_fenced=True) as pool:
        yield attacking(pool)


@pytest.mark.parametrize(
    "source",
    [
        "return require('fs').readFileSync('/etc/passwd', 'utf8')",
        "return require('fs').readdirSync('/proc')",
        "return require('fs').writeFileSync('/tmp/flo-hostile', 'x')",
        "return require('child_process').spawnSync('true')",
        "return new (require('worker_threads').Worker)('0', { eval: true })",
        "return process.binding('spawn_sync').spawn({ file: '/bin/true', args: ['true'], stdio: [] })",
    ],
)
async def test_files_programs_and_threads_are_refused(fenced: Attack, source: str) -> None:
    assert await fenced(source) in {"failed: ERR_ACCESS_DENIED", "failed: ERR_INVALID_MODULE"}


async def test_it_has_no_environment(fenced: Attack) -> None:
    assert await fenced("return Object.keys(process.env)") == []
