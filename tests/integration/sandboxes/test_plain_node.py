"""What plain Node may do beyond a V8 isolate, and what it keeps apart though it is no sandbox."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from schemas.outcome import ErrorKind
from tests.code_runs import SHORT, Heard, death_of, error_of, order, run, start_worker, value_of
from workers.sandboxes.base import CodeFailed, CodeReturned
from workers.sandboxes.plain_node import PlainNodePool

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Starts a program that outlives its run, if nobody ends it, and logs its number.
LEAVES_A_CHILD = """
import { spawn } from 'node:child_process';
export default async ({ends}) => {
  const child = spawn('sleep', ['1000']);
  await new Promise((ok) => child.once('spawn', ok));
  console.log(child.pid);
  if (!ends) await new Promise(() => {});
  return child.pid;
};
"""


def is_known(pid: int) -> bool:
    """Tell whether a process is there, if only as a zombie."""
    return Path(f"/proc/{pid}").exists()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[PlainNodePool]:
    async with PlainNodePool(hosts=1, warm_memory_mb=64) as opened:
        yield opened


# What it may do ----------------------------------------------------------------------------------------------------


async def test_modules_of_node_can_be_imported(pool: PlainNodePool) -> None:
    source = """
    import fs, { existsSync } from 'node:fs';
    import os from 'os';
    export default () => [existsSync === fs.existsSync, os.EOL];
    """
    assert await value_of(pool, source) == [True, "\n"]


async def test_modules_of_node_can_be_required_and_imported_later(pool: PlainNodePool) -> None:
    source = "module.exports = async () => [require('node:path').sep, (await import('path')).sep]"
    assert await value_of(pool, source) == ["/", "/"]


async def test_files_are_read_and_written(pool: PlainNodePool, tmp_path: Path) -> None:
    source = """
    import fs from 'fs';
    export default ({at}) => { fs.writeFileSync(at, 'hi'); return fs.readFileSync(at, 'utf8') }
    """
    assert await value_of(pool, source, {"at": str(tmp_path / "a")}) == "hi"


async def test_programs_are_started_and_heard(pool: PlainNodePool) -> None:
    source = """
    import { execFileSync } from 'child_process';
    export default () => execFileSync('echo', ['hi'], { encoding: 'utf8' });
    """
    assert await value_of(pool, source) == "hi\n"


async def test_a_server_of_its_own_is_fetched_from(pool: PlainNodePool) -> None:
    source = """
    import http from 'http';
    export default async () => {
      const server = http.createServer((_, answer) => answer.end('hi'));
      await new Promise((ok) => server.listen(0, '127.0.0.1', ok));
      return (await fetch(`http://127.0.0.1:${server.address().port}`)).text();
    }
    """
    assert await value_of(pool, source) == "hi"


async def test_what_is_written_to_the_streams_is_logged(pool: PlainNodePool) -> None:
    heard = Heard()
    source = "export default () => { process.stdout.write('a\\nb'); process.stderr.write('c\\n') }"
    assert await pool.run(order(source), heard) == CodeReturned(None)
    assert heard.lines == [("info", "a"), ("error", "c"), ("info", "b")]


# Honest failures ---------------------------------------------------------------------------------------------------


async def test_leaving_the_process_ends_only_the_run(pool: PlainNodePool) -> None:
    heard = Heard()
    before = pool.pids
    outcome = await pool.run(
        order("export default () => { console.log(1); process.stdout.write('2'); process.exit(3) }"), heard
    )
    assert isinstance(outcome, CodeFailed)
    assert outcome.error.message == "The code ended its process (exit code 3) in place of returning"
    assert (heard.lines, pool.pids) == ([("info", "1"), ("info", "2")], before)


async def test_memory_in_buffers_is_charged_to_the_run_that_took_it(pool: PlainNodePool) -> None:
    before = pool.pids
    innocent = asyncio.create_task(value_of(pool, "export default () => new Promise((ok) => setTimeout(ok, 800, 1))"))
    greedy = "export default () => { const kept = []; for (;;) kept.push(Buffer.alloc(1e6, 1)) }"
    assert (await error_of(pool, order(greedy, memory_mb=32))).kind == ErrorKind.MEMORY_EXCEEDED
    assert (await innocent, pool.pids) == (1, before)


async def test_an_endless_loop_leaves_its_host_alive(pool: PlainNodePool) -> None:
    before = pool.pids
    assert (await error_of(pool, order("for (;;);", timeout=SHORT))).kind == ErrorKind.TIMED_OUT
    assert (await value_of(pool, "export default () => 1"), pool.pids) == (1, before)


async def test_a_program_ends_with_the_run_that_started_it(pool: PlainNodePool) -> None:
    child = await value_of(pool, LEAVES_A_CHILD, {"ends": True})
    assert isinstance(child, int)
    await death_of(child)
    # The run has left its host by the time that the next is through, and what it started is not even a zombie.
    await value_of(pool, "export default () => new Promise((ok) => setTimeout(ok, 200))")
    assert not is_known(child)


async def test_a_program_ends_with_the_run_that_timed_out(pool: PlainNodePool) -> None:
    heard = Heard()
    running = asyncio.create_task(pool.run(order(LEAVES_A_CHILD), heard))
    await heard.until(lambda: len(heard.lines) == 1)
    running.cancel()
    await death_of(int(heard.lines[0][1]))


async def test_a_change_of_the_environment_stays_in_its_run(pool: PlainNodePool) -> None:
    assert await value_of(pool, "export default () => { process.env.LEFT = '1'; return process.env.LEFT }") == "1"
    assert await value_of(pool, "export default () => process.env.LEFT ?? null") is None


# Hosts that die ----------------------------------------------------------------------------------------------------


async def test_a_run_whose_host_dies_is_lost_and_never_starts_twice(tmp_path: Path) -> None:
    source = """
    import fs from 'fs';
    export default async ({at}) => { fs.appendFileSync(at, 'x'); console.log(1); await new Promise(() => {}) }
    """
    async with PlainNodePool(hosts=1) as pool:
        heard = Heard()
        both = [
            asyncio.create_task(pool.run(order(source, {"at": str(tmp_path / name)}), heard)) for name in ("a", "b")
        ]
        await heard.until(lambda: len(heard.lines) == 2)
        os.kill(pool.pids[0], signal.SIGKILL)
        outcomes = await asyncio.gather(*both)
        assert await value_of(pool, "export default () => 1") == 1
    assert [each.error.kind for each in outcomes if isinstance(each, CodeFailed)] == [ErrorKind.LOST] * 2
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == "xx"


async def test_code_that_kills_its_host_is_guilty_when_it_was_alone() -> None:
    async with PlainNodePool(hosts=1) as pool:
        error = await error_of(pool, "export default () => process.kill(process.pid, 'SIGSEGV')")
        assert (error.kind, error.message) == (ErrorKind.KILLED, "code.js crashed its Node host (exit code -11)")
        assert await value_of(pool, "export default () => 1") == 1


async def test_a_thread_that_cannot_be_stopped_costs_its_host(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    stubborn = f"""
    import {{ execSync }} from 'child_process';
    export default async () => {{
      execSync('echo blocked >{told}; sleep 1000');
    }}
    """
    async with PlainNodePool(hosts=1, grace=SHORT) as pool:
        before = pool.pids
        running = asyncio.create_task(pool.run(order(stubborn), Heard()))
        # The thread's child says it: now nothing in the thread can be reached.
        assert await asyncio.to_thread(told.read_text) == "blocked\n"
        running.cancel()
        await asyncio.gather(*map(death_of, before))
        assert await value_of(pool, "export default () => 1") == 1


async def test_hosts_end_when_their_worker_is_killed() -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(Path.cwd())!r})
from tests.code_runs import ENDLESS, WAITING, order
from workers.sandboxes.plain_node import PlainNodePool
async def main():
    async with PlainNodePool(hosts=1) as pool:
        asyncio.create_task(pool.run(order(ENDLESS), print))
        await pool.run(order(WAITING), lambda *line: print(*pool.pids, flush=True))
asyncio.run(main())
"""
    with start_worker(program) as worker:
        pid = int(await asyncio.to_thread(worker.stdout.readline))
        worker.kill()
        await death_of(pid)


# Where it runs -----------------------------------------------------------------------------------------------------


async def test_code_is_given_no_more_of_the_environment_than_is_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLO_DATABASE_URL", "secret")
    async with PlainNodePool(hosts=1) as pool:
        names = await value_of(pool, "export default () => Object.keys(process.env)")
    assert isinstance(names, list)
    assert ("PATH" in names, "FLO_DATABASE_URL" in names) == (True, False)


async def test_code_finds_itself_in_the_folder_that_was_given(tmp_path: Path) -> None:
    async with PlainNodePool(hosts=1, cwd=tmp_path) as pool:
        assert await value_of(pool, "export default () => process.cwd()") == str(tmp_path)


async def test_a_cancelled_run_stops(pool: PlainNodePool, tmp_path: Path) -> None:
    source = """
    import fs from 'fs';
    export default ({at}) => {
      setInterval(() => { fs.appendFileSync(at, 'x'); console.log(1) }, 1);
      return new Promise(() => {});
    }
    """
    heard = Heard()
    running = asyncio.create_task(pool.run(order(source, {"at": str(tmp_path / "a")}), heard))
    await heard.until(lambda: len(heard.lines) > 2)
    running.cancel()
    assert await run(pool, order("export default () => new Promise((ok) => setTimeout(ok, 100))")) == CodeReturned(None)
    size = (tmp_path / "a").stat().st_size
    assert await run(pool, order("export default () => new Promise((ok) => setTimeout(ok, 50))")) == CodeReturned(None)
    assert (tmp_path / "a").stat().st_size == size
