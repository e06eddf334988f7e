"""Hosts that die, hang, do not start, or outlive their worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop

from schemas.errors import Unavailable
from schemas.outcome import ErrorKind
from tests.code_runs import (
    ENDLESS,
    HOST_KILLER,
    SHORT,
    WAITING,
    Heard,
    Rewriting,
    alive,
    death_of,
    error_of,
    order,
    run,
    start_worker,
    value_of,
)
from workers.sandboxes.base import CodeFailed, CodeReturned
from workers.sandboxes.node.jail import NoJail
from workers.sandboxes.v8 import V8Pool

#: Says that it has begun, waits a little, and returns its number.
INNOCENT = """
export default async ({n, wait}) => {
  console.log(`begun ${n}`);
  await new Promise((ok) => setTimeout(ok, wait));
  return n;
}
"""

#: Makes a host die natively, as a bug in V8 would, when it is given code that says so.
CRASHER = """
import { writeSync } from "node:fs";
const parse = JSON.parse;
JSON.parse = (text) => {
  const message = parse(text);
  if (message?.source?.includes("out of memory")) writeSync(2, "FATAL ERROR: JavaScript heap out of memory\\n");
  if (message?.source?.startsWith("crash")) process.kill(process.pid, "SIGSEGV");
  return message;
};
"""


def with_crasher(command: Sequence[str]) -> list[str]:
    return [command[0], f"--import=data:text/javascript,{CRASHER}", *command[1:]]


async def start_innocents(pool: V8Pool, count: int, *, wait: int) -> tuple[list[asyncio.Task[object]], Heard]:
    """Start innocents and return when all have begun."""
    heard = Heard()
    running: list[asyncio.Task[object]] = [
        asyncio.create_task(pool.run(order(INNOCENT, {"n": n, "wait": wait}), heard)) for n in range(count)
    ]
    await heard.until(lambda: len(heard.lines) == count)
    return running, heard


def each_begun_once(count: int) -> list[tuple[str, str]]:
    return sorted(("info", f"begun {n}") for n in range(count))


async def test_all_runs_succeed_when_their_host_is_killed_and_no_log_line_comes_twice() -> None:
    async with V8Pool(hosts=1) as pool:
        running, heard = await start_innocents(pool, 20, wait=200)
        os.kill(pool.pids[0], signal.SIGKILL)
        assert await asyncio.gather(*running) == [CodeReturned(n) for n in range(20)]
        assert sorted(heard.lines) == each_begun_once(20)


async def test_runs_go_on_in_the_other_hosts_while_one_is_replaced() -> None:
    async with V8Pool(hosts=2) as pool:
        first = pool.pids[0]
        os.kill(first, signal.SIGKILL)
        assert await asyncio.gather(*(value_of(pool, INNOCENT, {"n": n, "wait": 1}) for n in range(50))) == list(
            range(50)
        )
        assert first not in pool.pids


async def test_the_run_that_crashes_its_host_is_guilty_and_the_others_succeed() -> None:
    async with V8Pool(hosts=1, jail=Rewriting(with_crasher)) as pool:
        running, heard = await start_innocents(pool, 5, wait=200)
        error = await error_of(pool, "crash")
        assert (error.kind, error.message) == (
            ErrorKind.KILLED,
            "code.js crashed its V8 host each time it was tried (exit code -11)",
        )
        assert await asyncio.gather(*running) == [CodeReturned(n) for n in range(5)]
        assert sorted(heard.lines) == each_begun_once(5)


async def test_a_host_that_dies_for_want_of_memory_gives_the_guilty_run_memory_exceeded() -> None:
    async with V8Pool(hosts=1, jail=Rewriting(with_crasher)) as pool:
        running, _ = await start_innocents(pool, 3, wait=200)
        assert (await error_of(pool, "crash // out of memory")).kind == ErrorKind.MEMORY_EXCEEDED
        assert await asyncio.gather(*running) == [CodeReturned(n) for n in range(3)]


async def test_native_memory_is_bounded_from_outside_and_the_others_succeed() -> None:
    async with V8Pool(hosts=1) as pool:
        running, heard = await start_innocents(pool, 3, wait=3000)
        assert (await error_of(pool, order(HOST_KILLER, memory_mb=32))).kind == ErrorKind.MEMORY_EXCEEDED
        assert await asyncio.gather(*running) == [CodeReturned(n) for n in range(3)]
        assert sorted(heard.lines) == each_begun_once(3)


async def test_runs_in_a_host_that_hangs_start_again() -> None:
    async with V8Pool(hosts=1, grace=SHORT) as pool:
        heard = Heard()
        patient = asyncio.create_task(pool.run(order(INNOCENT, {"n": 1, "wait": 1}), heard))
        hung = pool.pids[0]
        os.kill(hung, signal.SIGSTOP)
        hasty = asyncio.create_task(run(pool, order("export default () => 2", timeout=timedelta(seconds=2))))
        assert (await patient, await hasty) == (CodeReturned(1), CodeReturned(2))
        assert not alive(hung)


async def test_a_run_that_cannot_be_stopped_loses_its_host_but_no_other_run() -> None:
    stubborn = "export default () => { let a = 3n ** 1000000n; for (;;) a = a * a }"
    async with V8Pool(hosts=1, grace=SHORT) as pool:
        running, heard = await start_innocents(pool, 3, wait=1500)
        assert (await error_of(pool, order(stubborn, timeout=SHORT))).kind == ErrorKind.TIMED_OUT
        assert await asyncio.gather(*running) == [CodeReturned(n) for n in range(3)]
        assert sorted(heard.lines) == each_begun_once(3)


async def test_cancelling_endless_loops_gives_their_places_free() -> None:
    async with V8Pool(hosts=1, slots=2) as pool:
        loops = [asyncio.create_task(run(pool, order(ENDLESS))) for _ in range(2)]
        waiting = asyncio.create_task(value_of(pool, "export default () => 1"))
        await asyncio.gather(*(value_of_began(loop) for loop in loops))
        for loop in loops:
            loop.cancel()
        assert await waiting == 1


async def value_of_began(loop: asyncio.Task[object]) -> None:
    """Let the task take its first step."""
    await asyncio.wait([loop], timeout=0)


async def test_no_host_is_left_after_the_pool_is_closed() -> None:
    async with V8Pool(hosts=2) as pool:
        running, _ = await start_innocents(pool, 4, wait=60_000)
        pids = pool.pids
        assert all(map(alive, pids))
    assert not any(map(alive, pids))
    outcomes = await asyncio.gather(*running)
    assert all(isinstance(each, CodeFailed) and each.error.kind == ErrorKind.LOST for each in outcomes)


async def test_closing_twice_is_harmless_and_a_closed_pool_refuses_runs() -> None:
    async with V8Pool(hosts=1) as pool:
        pass
    await pool.aclose()
    with pytest.raises(Unavailable, match="already closed"):
        await run(pool, order("export default () => 1"))


@pytest.mark.parametrize("jail", ["NoJail()", "NoJail(prefix=())"], ids=["with its parent", "by itself"])
async def test_hosts_end_when_their_worker_is_killed_even_in_an_endless_loop(jail: str) -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(Path.cwd())!r})
from tests.code_runs import ENDLESS, WAITING, order
from workers.sandboxes.node.jail import NoJail
from workers.sandboxes.v8 import V8Pool
async def main():
    async with V8Pool(hosts=1, jail={jail}) as pool:
        asyncio.create_task(pool.run(order(ENDLESS), print))
        await pool.run(order(WAITING), lambda *line: print(*pool.pids, flush=True))
asyncio.run(main())
"""
    with start_worker(program) as worker:
        pids = [int(pid) for pid in (await asyncio.to_thread(worker.stdout.readline)).split()]
        assert len(pids) == 1
        worker.kill()
        await asyncio.gather(*map(death_of, pids))


async def test_a_missing_node_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"does not start .* run scripts/setup"):
        await V8Pool(hosts=1, node=tmp_path / "node", jail=NoJail(prefix=())).start()


async def test_a_missing_isolated_vm_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"isolated-vm is missing .* run scripts/setup"):
        await V8Pool(hosts=1, folder=tmp_path).start()


async def test_a_host_that_ends_before_it_is_ready_says_why() -> None:
    def fail(command: Sequence[str]) -> list[str]:
        return [command[0], "-e", "throw new Error('no good')"]

    with pytest.raises(Unavailable, match=r'ended with code 1 .* said "Error: no good": run scripts/setup'):
        await V8Pool(hosts=2, jail=Rewriting(fail)).start()


async def test_when_no_host_can_be_started_again_runs_are_lost_with_the_fix() -> None:
    starts = 0

    def start_only_once(command: Sequence[str]) -> list[str]:
        nonlocal starts
        starts += 1
        return [*command] if starts == 1 else ["/nowhere/node"]

    async with V8Pool(hosts=1, jail=Rewriting(start_only_once)) as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        error = await error_of(pool, WAITING)
        assert (error.kind, "run scripts/setup" in error.message) == (ErrorKind.LOST, True)


def test_the_pool_works_in_uvloop_too() -> None:
    async def work() -> object:
        async with V8Pool(hosts=1) as pool:
            return await value_of(pool, "export default ({n}) => n", {"n": 1})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) == 1
