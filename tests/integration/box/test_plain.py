"""Plain processes, beyond what every place promises: they outlive neither worker nor server, and leave no folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.outcome import ErrorKind
from tests.integration.box.boxes import Heard, command, descendants, gone, ignore_output, shell
from tests.processes import children_of
from workers.sandboxes.box.base import Exited, Stopped
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.cgroups import Cgroups, Tree, find_tree
from workers.sandboxes.box.identity import pid_namespace
from workers.sandboxes.box.plain import PlainWay, open_plain, sweep

_WORKER = """
import asyncio, sys
from pathlib import Path
from tests.integration.box.boxes import shell
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.cgroups import Cgroups, Tree
from workers.sandboxes.box.plain import PlainWay
async def main():
    way = PlainWay(scratch=Path(sys.argv[1]))
    place = NamespaceBox(way, Cgroups(Tree(0, {}, {})), environment={"PATH": "/usr/bin:/bin"})
    script = "(setsid sleep 4343 >/dev/null 2>&1 &); echo up; sleep 4343"
    await place.run(shell(script), lambda *_: print("up", flush=True))
asyncio.run(main())
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[NamespaceBox]:
    """A place whose folders are the test's own."""
    way = PlainWay(scratch=tmp_path)
    place = NamespaceBox(way, Cgroups(Tree(0, {}, {})), environment={"PATH": "/usr/bin:/bin"}, spares=0)
    yield place
    await place.aclose()
    assert left_in(tmp_path) == []


async def test_a_worker_that_is_killed_takes_its_processes_and_folders_along(tmp_path: Path) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path.cwd()
    )
    assert worker.stdout is not None
    await worker.stdout.readline()
    below = descendants(worker.pid)
    pidfds = [os.pidfd_open(pid) for pid in below]
    worker.kill()
    await worker.wait()
    assert len(below) >= 4  # server, first process, shell, two sleeps
    for pidfd in pidfds:
        await gone(pidfd)
    assert left_in(tmp_path) == []


async def test_a_server_that_is_killed_loses_its_orders_and_is_replaced(place: NamespaceBox, tmp_path: Path) -> None:
    before = children_of(os.getpid())
    heard = Heard()
    run = asyncio.create_task(place.run(shell("echo up; sleep 60"), heard))
    await heard.first
    (server,) = [pid for pid in children_of(os.getpid()) if pid not in before]
    os.kill(server, signal.SIGKILL)
    lost = await run
    assert isinstance(lost, Stopped)
    assert lost.error.kind is ErrorKind.LOST
    found = await place.run(command("echo", "again"), ignore_output)
    assert isinstance(found, Exited)
    assert found.stdout == b"again\n"


async def test_a_first_process_that_is_killed_takes_its_order_along(place: NamespaceBox) -> None:
    found = await place.run(shell("(setsid sleep 4344 &) ; kill -9 $PPID; sleep 60"), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind is ErrorKind.LOST
    after = await place.run(shell("ps -e -o args | grep -c '[s]leep 4344'; true"), ignore_output)
    assert isinstance(after, Exited)
    assert after.stdout == b"0\n"


async def test_ctrl_c_is_the_workers_and_no_orders(place: NamespaceBox) -> None:
    found = await place.run(shell("test $(ps -o sid= -p $PPID) -ne " + str(os.getsid(0))), ignore_output)
    assert isinstance(found, Exited)
    assert found.code == 0


def test_the_folders_of_dead_workers_go_at_the_next_start(tmp_path: Path) -> None:
    dead, alive = (tmp_path / f"flo.plain.{pid_namespace()}.{os.getpid()}.{start}.x" for start in ("1", _start()))
    for home in (dead, alive):
        (home / "1").mkdir(parents=True)
    sweep(tmp_path)
    assert left_in(tmp_path) == [alive]


async def test_memory_is_held_by_a_cgroup_where_one_can_be_made() -> None:
    tree = find_tree()
    if "memory" not in tree.folders:
        pytest.skip("no memory cgroup can be made here")
    place = await open_plain(tree=tree, spares=0)
    try:
        found = await place.run(shell("tail /dev/zero"), ignore_output)
    finally:
        await place.aclose()
    assert isinstance(found, Stopped)
    assert found.error.kind is ErrorKind.MEMORY_EXCEEDED


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def _start() -> str:
    return Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
