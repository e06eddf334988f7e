"""What code may do in a V8 isolate, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.errors import Unavailable
from schemas.outcome import ErrorKind
from tests.code_runs import SHORT, error_of, order, run, value_of
from workers.sandboxes.v8 import V8Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[V8Pool]:
    async with V8Pool(hosts=2, warm_memory_mb=64) as opened:
        yield opened


async def test_timers_fire_in_the_order_in_which_they_are_due_with_promises_in_between(pool: V8Pool) -> None:
    source = """
    export default () => new Promise((ok) => {
      const said = [];
      const say = (text) => { said.push(text); Promise.resolve().then(() => said.push(`${text} then`)) };
      setTimeout(say, 3, 'b');
      setTimeout(say, 1, 'a');
      setTimeout(say, 3, 'c');
      setTimeout(() => ok(said), 5);
    })
    """
    assert await value_of(pool, source) == ["a", "a then", "b", "b then", "c", "c then"]


async def test_more_timers_than_allowed_are_refused(pool: V8Pool) -> None:
    error = await error_of(pool, "export default () => { for (;;) setTimeout(() => {}, 1e6) }")
    assert error.message == "code.js:1:33: Error: At most 1000 timers may be armed at once"


async def test_two_hundred_runs_at_once_all_return_their_own(pool: V8Pool) -> None:
    source = "export default async ({n}) => { await new Promise((ok) => setTimeout(ok, n % 7)); return n }"
    assert await asyncio.gather(*(value_of(pool, source, {"n": n}) for n in range(200))) == list(range(200))


async def test_an_import_names_the_package_and_its_place(pool: V8Pool) -> None:
    error = await error_of(pool, "\nimport _ from 'lodash';\nexport default () => _")
    assert error.message == (
        'code.js:2:15: Cannot import "lodash": npm packages must stand in the node\'s "dependencies", '
        "and Node modules are not available"
    )


async def test_require_and_dynamic_import_are_refused(pool: V8Pool) -> None:
    assert (
        'Cannot load "fs": npm packages must stand'
        in (await error_of(pool, "module.exports = () => require('fs')")).message
    )
    assert (await error_of(pool, "export default () => import('fs')")).kind == ErrorKind.USER


async def test_a_pool_that_is_not_open_says_so() -> None:
    with pytest.raises(Unavailable, match="not started"):
        await run(V8Pool(hosts=1), order("export default () => 1"))


async def test_an_array_as_large_as_arrays_can_be_times_out(pool: V8Pool) -> None:
    error = await error_of(pool, order("export default () => Array(2 ** 32 - 1).fill(1)", timeout=SHORT))
    assert error.kind == ErrorKind.TIMED_OUT
