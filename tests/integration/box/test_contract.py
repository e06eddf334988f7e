"""What every way into a box promises beyond what every place for commands does (`tests/contract`)."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.outcome import ErrorKind
from tests.integration.box.boxes import command, descendants, gone, ignore_output, limits, opened, python, shell
from workers.sandboxes.box.base import Exited, ProgramOrder, Returned, Stopped
from workers.sandboxes.box.box import NamespaceBox


async def test_the_pid_limit_holds_and_is_told(box: NamespaceBox) -> None:
    source = "import os, time\ndef main():\n    for _ in range(50):\n        if os.fork() == 0: time.sleep(60)"
    found = await box.run_python(python(source, pids=8), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.USER
    assert "Resource temporarily unavailable" in found.error.message


async def test_twenty_boxes_at_once_do_not_mix(box: NamespaceBox) -> None:
    orders = [python("def main(n): return n", inputs={"n": n}) for n in range(20)]
    found = await asyncio.gather(*(box.run_python(order, ignore_output) for order in orders))
    assert [outcome.value for outcome in found if isinstance(outcome, Returned)] == list(range(20))


async def test_nothing_of_one_box_is_there_in_the_next(box: NamespaceBox) -> None:
    await box.run(shell("echo leak >/tmp/leak; echo leak >leak; echo leak >/dev/shm/leak"), ignore_output)
    found = await box.run(shell("ls -A /tmp /work /dev/shm | grep leak; true"), ignore_output)
    assert isinstance(found, Exited)
    assert found.stdout == b""


async def test_a_box_is_used_once_also_when_it_was_spare(box: NamespaceBox) -> None:
    source = "import uuid\ndef main(): return uuid.uuid4().hex"
    found = [await box.run_python(python(source), ignore_output) for _ in range(3)]
    assert len({outcome.value for outcome in found if isinstance(outcome, Returned)}) == 3


async def test_boxes_do_not_share_the_state_of_the_random_generator(box: NamespaceBox) -> None:
    found = [
        await box.run_python(python("import random\ndef main(): return random.random()"), ignore_output)
        for _ in range(2)
    ]
    assert len({outcome.value for outcome in found if isinstance(outcome, Returned)}) == 2


async def test_usage_tells_what_was_used_and_what_held_it(box: NamespaceBox) -> None:
    found = await box.run_python(python("def main(): return sum(range(10**6)) and None"), ignore_output)
    assert found.usage.cpu > timedelta(0)
    assert found.usage.peak_memory_bytes > 1_000_000
    assert found.usage.cgroups == box.cgroups.held


async def test_the_user_is_nobody_here_and_no_one_there(box: NamespaceBox) -> None:
    found = await box.run(
        shell("id -u; cat /proc/self/uid_map; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status"), ignore_output
    )
    assert isinstance(found, Exited)
    lines = found.stdout.decode().splitlines()
    assert lines[0] == "1000"
    assert lines[1].split()[0] == "1000"
    assert {line.split()[1] for line in lines if line.startswith("Cap")} == {"0" * 16}
    assert "NoNewPrivs:\t1" in lines
    assert "Seccomp:\t2" in lines


async def test_a_program_talks_over_its_socket_until_it_is_killed(box: NamespaceBox) -> None:
    source = "import socket\ns = socket.socket(fileno=3)\nwhile True: s.sendall(s.recv(100).upper())"
    program = await box.start(ProgramOrder(argv=("python3", "-c", source), app="tests", limits=limits()), ignore_output)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(program.channel, b"hello")
    assert await loop.sock_recv(program.channel, 100) == b"HELLO"
    program.kill()
    found = await program.wait()
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.CANCELLED


async def test_a_program_may_have_its_socket_as_stdin_and_end_by_itself(box: NamespaceBox) -> None:
    order = ProgramOrder(
        argv=("sh", "-c", "read line; echo got $line; exit 5"), app="tests", limits=limits(), channel_fd=0
    )
    program = await box.start(order, ignore_output)
    await asyncio.get_running_loop().sock_sendall(program.channel, b"it\n")
    found = await program.wait()
    assert isinstance(found, Exited)
    assert (found.code, found.stdout) == (5, b"got it\n")


async def test_node_runs_in_a_box(box: NamespaceBox) -> None:
    found = await box.run(command("node", "-e", "console.log(6 * 7)", memory_mb=256), ignore_output)
    assert isinstance(found, Exited)
    assert (found.stdout, found.stderr) == (b"42\n", b"")


async def test_a_dead_workers_boxes_die_with_it(
    tmp_path: Path, request: pytest.FixtureRequest, box: NamespaceBox
) -> None:
    """A worker that is killed -9 takes its zygote and boxes along."""
    way = request.node.callspec.params["box"]
    script = (
        "import asyncio, sys\n"
        "from tests.integration.box.boxes import open_box, shell\n"
        "async def main():\n"
        f"    box = await open_box(way={way!r}, spares=1)\n"
        "    await box.run(shell('sleep 4242 & echo up; wait'), lambda *_: print('up', flush=True))\n"
        "asyncio.run(main())\n"
    )
    import sys

    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=Path.cwd()
    )
    assert worker.stdout is not None
    await worker.stdout.readline()
    below = descendants(worker.pid)
    pidfds = [os.pidfd_open(pid) for pid in below]
    worker.kill()
    await worker.wait()
    assert len(below) >= 3
    for pidfd in pidfds:
        await gone(pidfd)


async def test_a_spare_box_takes_larger_and_smaller_limits_than_it_was_made_with(
    request: pytest.FixtureRequest, box: NamespaceBox
) -> None:
    async with opened(request.node.callspec.params["box"], spares=1) as sparing:
        for memory_mb in (32, 256, 64, 512):
            source = f"def main(): return len(bytearray({memory_mb // 2} << 20))"
            found = await sparing.run_python(python(source, memory_mb=memory_mb), ignore_output)
            assert isinstance(found, Returned), found
            await _spare_made(sparing)


async def _spare_made(box: NamespaceBox) -> None:
    """Return when the next order will get a box that was made for one like the last."""
    async with asyncio.timeout(20):
        while not box._spares:  # noqa: ASYNC110 - it tells nobody of its spares
            await asyncio.sleep(0.002)
