"""Programs that want more than their share: each is stopped at a limit that is named, and takes nobody along."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from schemas.outcome import ErrorKind
from tests.integration.box.boxes import Heard, ignore_output, python, shell
from workers.sandboxes.box.base import Exited, Returned, Stopped
from workers.sandboxes.box.box import NamespaceBox

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = timedelta(seconds=2)

#: What runs for ever unless it is stopped: (shell or Python, limits).
ENDLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "a loop": ("def main():\n    while True: pass", {}),
    "a sleep": ("import time\ndef main(): time.sleep(10**6)", {}),
    "a sleep that swallows interrupts": (
        "import signal, time\ndef main():\n    for n in range(1, 65):\n        try: signal.signal(n, signal.SIG_IGN)\n"
        "        except (OSError, ValueError): pass\n    while True: time.sleep(1)",
        {},
    ),
    "a read of a pipe that nobody writes": ("import os\ndef main(): r, w = os.pipe(); os.read(r, 1)", {}),
    "a regular expression": ("import re\ndef main(): re.match(r'(a+)+$', 'a' * 64 + 'b')", {}),
    "arithmetic in C": ("def main(): return len(str(9 ** (9 ** 9)))", {}),
    "threads": (
        "import threading\ndef loop():\n    while True: pass\ndef main():\n"
        "    for _ in range(4): threading.Thread(target=loop).start()\n    loop()",
        {},
    ),
    "a thread that main leaves behind": (
        "import threading, time\ndef main():\n    left = threading.Thread(target=time.sleep, args=(10**6,))\n"
        "    left.start()\n    left.join()",
        {},
    ),
    "a module that never finishes loading": ("while True: pass\ndef main(): pass", {}),
    "an object whose JSON never ends": (
        "class Endless(dict):\n    def items(self):\n        while True: yield ('a', 1)\ndef main(): return Endless(a=1)",
        {"max_output_bytes": 10_000_000},
    ),
    "handlers of exit": (
        "import atexit, time\ndef main():\n    while True:\n        try: time.sleep(60)\n        finally: continue",
        {},
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_never_ends_is_ended(box: NamespaceBox, name: str) -> None:
    source, changes = ENDLESS[name]
    found = await box.run_python(python(source, **{"timeout": SHORT, **changes}), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind in {ErrorKind.TIMED_OUT, ErrorKind.MEMORY_EXCEEDED}


BOMBS = {
    "fork": "import os\ndef main():\n    while True: os.fork()",
    "fork that ignores failure": "import os\ndef main():\n    while True:\n        try: os.fork()\n        except OSError: pass",
    "threads": "import threading, time\ndef main():\n    while True: threading.Thread(target=time.sleep, args=(60,)).start()",
    "shell": "import os\ndef main(): os.execvp('sh', ['sh', '-c', 'b() { b | b & }; b; sleep 60'])",
    "vfork and exec": "import subprocess\ndef main():\n    while True: subprocess.Popen(['sleep', '60'])",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_of_processes_is_held_to_its_pids(box: NamespaceBox, name: str) -> None:
    found = await box.run_python(python(BOMBS[name], timeout=SHORT), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind in {ErrorKind.USER, ErrorKind.TIMED_OUT, ErrorKind.MEMORY_EXCEEDED}


async def test_a_fork_bomb_never_has_more_than_its_pids(box: NamespaceBox) -> None:
    source = (
        "import os, time\ndef main():\n    r, w = os.pipe()\n    while True:\n        try: child = os.fork()\n"
        "        except OSError: break\n        if child == 0:\n            os.write(w, b'x'); time.sleep(60)\n"
        "    os.set_blocking(r, False)\n    time.sleep(0.2)\n    return len(os.read(r, 10_000))"
    )
    found = await box.run_python(python(source, pids=10), ignore_output)
    assert isinstance(found, Returned)
    assert isinstance(found.value, int)
    assert 1 <= found.value < 10


MEMORY = {
    "a long string": "def main(): return len('x' * 10**9)",
    "a growing list": "def main():\n    a = []\n    while True: a.append('x' * 10**6)",
    "private anonymous pages": "import mmap\ndef main():\n    m = mmap.mmap(-1, 512 << 20, mmap.MAP_PRIVATE)\n    for i in range(0, len(m), 4096): m[i] = 1",
    "shared anonymous pages": "import mmap\ndef main():\n    m = mmap.mmap(-1, 512 << 20)\n    for i in range(0, len(m), 4096): m[i] = 1",
    "an anonymous file": "import os\ndef main():\n    f = os.memfd_create('m')\n    while True: os.write(f, b'x' * 10**6)",
    "many anonymous files": (
        "import os\ndef main():\n    fs = [os.memfd_create('m') for _ in range(40)]\n"
        "    for f in fs:\n        for _ in range(7): os.write(f, b'x' * 10**6)"
    ),
    "scratch files and pages together": (
        "def main():\n    for n in range(7): open(f'/tmp/{n}', 'wb').write(b'x' * 10**6)\n    a = []\n    while True: a.append('x' * 10**6)"
    ),
    "children": (
        "import os\ndef main():\n    pids = []\n    for _ in range(6):\n        pid = os.fork()\n        if pid == 0:\n"
        "            a = 'x' * (40 << 20)\n            import time; time.sleep(60)\n        pids.append(pid)\n"
        "    for pid in pids:\n        _, status = os.wait()\n        if status: raise MemoryError"
    ),
    "the buffers of pipes and sockets": (
        "import socket\ndef main():\n    kept = []\n    while True:\n        a, b = socket.socketpair(); a.setblocking(False); kept += [a, b]\n"
        "        try:\n            while True: a.send(b'x' * 65536)\n        except BlockingIOError: pass"
    ),
}


@pytest.mark.parametrize("name", MEMORY)
async def test_a_bomb_of_memory_is_told_as_that_or_as_the_limit_that_came_first(box: NamespaceBox, name: str) -> None:
    if name == "children" and "memory" not in box.cgroups.held:
        pytest.skip("without a memory cgroup the limit is each process's own")
    found = await box.run_python(python(MEMORY[name]), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind in {ErrorKind.MEMORY_EXCEEDED, ErrorKind.USER}
    # No more than the limit was ever held, where something counts for the box as a whole.
    assert found.usage.peak_memory_bytes <= (64 + 16) << 20 or "memory" not in found.usage.cgroups


async def test_memory_of_a_command_is_told_by_the_cgroup(box: NamespaceBox) -> None:
    if "memory" not in box.cgroups.held:
        pytest.skip("no memory cgroup can be made here")
    found = await box.run(shell("tail /dev/zero"), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.MEMORY_EXCEEDED
    assert found.error.details == {"limit": 64, "raise_with": "memory_mb"}


SPACE = {
    "one file": "dd if=/dev/zero of=/tmp/big bs=1M count=64",
    "many files": "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do dd if=/dev/zero of=/work/$n bs=1M count=4 || exit 1; done",
    "shared memory": "for n in 1 2 3 4 5 6; do dd if=/dev/zero of=/dev/shm/$n bs=1M count=7 || exit 1; done",
    "fallocate": "fallocate -l 64M /tmp/big",
    "a huge sparse file": "truncate -s 1T /tmp/sparse",
}


@pytest.mark.parametrize("name", SPACE)
async def test_scratch_space_is_held_to_its_size(box: NamespaceBox, name: str) -> None:
    found = await box.run(shell(SPACE[name], pids=8), ignore_output)
    assert isinstance(found, Stopped) or found.code != 0


async def test_files_are_held_to_their_number(box: NamespaceBox) -> None:
    if not box.way.limits_files:
        pytest.skip("bubblewrap can't limit how many files there are; they count as memory where a cgroup holds that")
    found = await box.run(
        shell("i=0; while [ $i -lt 4000 ]; do : >/work/$i || exit 2; i=$((i+1)); done"), ignore_output
    )
    assert isinstance(found, Exited)
    assert found.code == 2
    assert b"No space left on device" in found.stderr


async def test_a_file_over_its_limit_is_told_as_that(box: NamespaceBox) -> None:
    found = await box.run(shell("exec dd if=/dev/zero of=/work/big bs=1M count=64", tmp_mb=64), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.OUTPUT_EXCEEDED
    assert found.error.details == {"limit": 8, "raise_with": "file_size_mb"}


async def test_open_files_are_held_to_their_number(box: NamespaceBox) -> None:
    source = "import os\ndef main():\n    n = 0\n    try:\n        while True: os.open('/dev/null', 0); n += 1\n    except OSError as e: return [n, e.errno]"
    found = await box.run_python(python(source), ignore_output)
    assert isinstance(found, Returned)
    assert found.value == [found.value[0], 24]  # type: ignore[index]
    assert found.value[0] < 64  # type: ignore[index, operator]


FLOODS = {
    "stdout": "yes",
    "stderr": "yes >&2",
    "one line without an end": "cat /dev/zero",
    "a child that floods after its parent is gone": "(yes &) ; sleep 60",
    "both": "yes & yes >&2",
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_output_is_cut_at_its_limit(box: NamespaceBox, name: str) -> None:
    heard = Heard()
    found = await box.run(shell(FLOODS[name]), heard)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.OUTPUT_EXCEEDED
    assert len(found.stdout) + len(found.stderr) == 100_000
    assert sum(len(line) for _, line in heard) <= 100_000


async def test_limits_can_not_be_raised_from_inside(box: NamespaceBox) -> None:
    source = """
import resource
def main():
    raised = []
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            which = getattr(resource, name)
            soft, hard = resource.getrlimit(which)
            if hard != resource.RLIM_INFINITY:
                try:
                    resource.setrlimit(which, (hard + 1, hard + 1)); raised.append(name)
                except (ValueError, OSError): pass
    return raised
"""
    found = await box.run_python(python(source), ignore_output)
    assert isinstance(found, Returned)
    assert found.value == []


async def test_no_core_is_dumped(box: NamespaceBox) -> None:
    found = await box.run(
        shell("sh -c 'kill -SEGV $$'; ls -A /work /tmp | grep core; cat /proc/sys/kernel/core_pattern"), ignore_output
    )
    assert isinstance(found, Exited)
    assert found.stdout == b""
