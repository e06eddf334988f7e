"""A pool whose hosts have been taken over, in the jail of every way; each attack is an async function's body."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from tests.integration.box.boxes import WAYS, assert_clean, ignore_output, opened
from workers.sandboxes.base import CodeOrder, CodeReturned
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.node.boxed import BoxJail, mounts_for
from workers.sandboxes.node.jail import Jail
from workers.sandboxes.node.pool import NodePool
from workers.sandboxes.node.program import HostProgram

BROKEN = Path(__file__).parent / "broken"
#: Runs an attack and gives what it found, or "failed: " and the code of its error.
Attack: TypeAlias = Callable[..., Awaitable[Any]]


def broken_pool(jail: Jail, *, is_fenced: bool = False) -> NodePool:
    return NodePool(HostProgram(name="broken", folder=BROKEN, is_fenced=is_fenced), hosts=1, jail=jail)


def attacking(pool: NodePool, *, memory_mb: int = 64) -> Attack:
    async def attack(source: str, **inputs: Any) -> Any:
        order = CodeOrder(source=source, inputs=inputs, app="evil", timeout=timedelta(seconds=30), memory_mb=memory_mb)
        outcome = await pool.run(order, lambda level, message: None)
        return outcome.value if isinstance(outcome, CodeReturned) else f"failed: {outcome.error.message}"

    return attack


@pytest_asyncio.fixture(params=WAYS, scope="module", loop_scope="module")
async def box(request: pytest.FixtureRequest) -> AsyncIterator[NamespaceBox]:
    async with opened(request.param, mounts=mounts_for(BROKEN)) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(box: NamespaceBox) -> AsyncIterator[NodePool]:
    async with broken_pool(BoxJail(box, name="test", memory_mb=512)) as opened_pool:
        yield opened_pool
    await assert_clean(box)


@pytest_asyncio.fixture(loop_scope="module")
async def attack(pool: NodePool) -> AsyncIterator[Attack]:
    """Attack; afterwards the pool still runs honest orders."""
    yield attacking(pool)
    assert await attacking(pool)("return inputs.n + 1", n=1) == 2


__all__ = ["Attack", "attacking", "broken_pool", "ignore_output", "json"]
