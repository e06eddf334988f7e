"""V8 hosts that live in boxes, and a pool that lives in one itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sysconfig
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.json import JSONObject
from schemas.outcome import ErrorKind
from tests.code_runs import HOST_KILLER, Heard, alive, death_of, error_of, order, run, start_worker, value_of
from tests.integration.box.boxes import WAYS, assert_clean, ignore_output, opened
from tests.processes import children_of
from workers.sandboxes.base import CodeReturned
from workers.sandboxes.box.base import BoxLimits, Exited, ProgramOrder
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.cgroups import Tree
from workers.sandboxes.node.boxed import BoxJail, mounts_for
from workers.sandboxes.v8 import V8Pool
from workers.sandboxes.v8.open import open_v8
from workers.sandboxes.v8.setup import HOST_FOLDER

REPOSITORY = Path(__file__).parents[3]
INSIDE = "/opt/flo/worker"


@pytest.fixture(params=WAYS)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[NamespaceBox]:
    async with opened(request.param, mounts=mounts_for(HOST_FOLDER)) as sandbox:
        yield sandbox
        await assert_clean(sandbox)


def jailed(box: NamespaceBox) -> V8Pool:
    return V8Pool(hosts=1, jail=BoxJail(box, name="test", memory_mb=4096))


async def test_code_runs_in_a_jailed_host(box: NamespaceBox) -> None:
    async with jailed(box) as pool:
        heard = Heard()
        outcome = await pool.run(order("export default ({n}) => { console.log('hi'); return n + 1 }", {"n": 1}), heard)
        assert (outcome, heard.lines) == (CodeReturned(2), [("info", "hi")])


async def test_many_isolates_at_once_find_room_in_one_box(box: NamespaceBox) -> None:
    source = "export default async ({n}) => { await new Promise((ok) => setTimeout(ok, 50)); return n }"
    async with jailed(box) as pool:
        assert await asyncio.gather(*(value_of(pool, source, {"n": n}) for n in range(64))) == list(range(64))


async def test_a_jailed_host_that_is_killed_is_replaced_and_its_runs_start_again(box: NamespaceBox) -> None:
    source = "export default async () => { console.log(1); await new Promise((ok) => setTimeout(ok, 300)); return 1 }"
    async with jailed(box) as pool:
        heard = Heard()
        running = asyncio.create_task(pool.run(order(source), heard))
        await heard.until(lambda: len(heard.lines) == 1)
        first = pool.pids[0]
        os.kill(first, signal.SIGKILL)
        assert await running == CodeReturned(1)
        assert not alive(first)


async def test_the_memory_of_a_jailed_host_is_watched_from_outside(box: NamespaceBox) -> None:
    async with jailed(box) as pool:
        assert pool.resident_mb() > 20
        assert (await error_of(pool, order(HOST_KILLER, memory_mb=32))).kind == ErrorKind.MEMORY_EXCEEDED
        assert await value_of(pool, "export default () => 1") == 1


async def test_an_endless_loop_ends_with_its_jail_when_the_pool_closes(box: NamespaceBox) -> None:
    async with jailed(box) as pool:
        heard = Heard()
        loop = asyncio.create_task(pool.run(order("export default () => { console.log(1); for (;;); }"), heard))
        await heard.until(lambda: len(heard.lines) == 1)
        pids = pool.pids
    assert not any(map(alive, pids))
    await loop


async def test_hosts_live_in_boxes_without_cgroups_too() -> None:
    async with opened("", mounts=mounts_for(HOST_FOLDER), tree=Tree(0, {}, {})) as box, jailed(box) as pool:
        source = "export default async ({n}) => { await new Promise((ok) => setTimeout(ok, 50)); return n }"
        assert await asyncio.gather(*(value_of(pool, source, {"n": n}) for n in range(32))) == list(range(32))


async def test_open_v8_takes_the_best_jail_and_closes_it_with_the_pool() -> None:
    before = children_of(os.getpid())
    pool = await open_v8(hosts=1)
    try:
        assert pool.jail
        assert await run(pool, order("export default () => 1")) == CodeReturned(1)
    finally:
        await pool.aclose()
    assert children_of(os.getpid()) == before


async def test_open_v8_runs_hosts_as_they_are_where_no_box_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sandboxes.box.inside.kernel.supported", lambda: False)
    pool = await open_v8(hosts=1)
    try:
        assert pool.jail == ""
        assert await run(pool, order("export default () => 1")) == CodeReturned(1)
    finally:
        await pool.aclose()


async def test_jailed_hosts_end_when_their_worker_is_killed() -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.code_runs import ENDLESS, WAITING, order
from workers.sandboxes.v8.open import open_v8
async def main():
    pool = await open_v8(hosts=1)
    asyncio.create_task(pool.run(order(ENDLESS), print))
    await pool.run(order(WAITING), lambda *line: print(*pool.pids, flush=True))
asyncio.run(main())
"""
    with start_worker(program) as worker:
        pid = int(await asyncio.to_thread(worker.stdout.readline))
        worker.kill()
        await death_of(pid)


@pytest.mark.parametrize("kind", ["V8Pool", "PlainNodePool"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_pool_works_inside_a_box(way: str, kind: str) -> None:
    mounts = {f"{INSIDE}/{name}": str(REPOSITORY / name) for name in ("schemas", "workers")}
    mounts |= {f"{INSIDE}/tests": str(Path(__file__).parent / "boxed_v8")}
    mounts |= {f"{INSIDE}/packages": sysconfig.get_path("purelib")}
    path = (INSIDE, f"{INSIDE}/tests", f"{INSIDE}/packages")
    limits = BoxLimits(timeout=timedelta(seconds=60), memory_mb=2048, pids=128, reserved_mb=64 * 1024)
    inputs: JSONObject = {"kind": kind, "source": "export default ({n}) => n * 2"}
    told = ProgramOrder(app="shop", entry="pool_in_a_box:serve", inputs=inputs, limits=limits)
    async with opened(way, mounts=mounts, path=path, preload=("pool_in_a_box",)) as box:
        program = await box.start(told, ignore_output)
        said = await asyncio.get_running_loop().sock_recv(program.channel, 1000)
        ending = await program.wait()
    assert isinstance(ending, Exited), ending
    assert (ending.stderr, json.loads(said or b"null")) == (b"", [42, True])
