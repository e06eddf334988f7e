"""Flows whose nodes want more than their share: the run ends with the status of the limit, which is named."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import pytest
from process_flows import run_node

from schemas.outcome import ErrorKind
from schemas.run import RunStatus, status_of
from workers.sandboxes.box.box import NamespaceBox

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Small enough that a bomb hurts nobody.
SMALL: dict[str, Any] = {
    "memory_mb": 48, "pids": 12, "tmp_mb": 8, "file_size_mb": 4, "max_output_bytes": 50_000, "timeout_ms": 1500,
}  # fmt: skip
EITHER = {RunStatus.TIMED_OUT, RunStatus.FAILED, RunStatus.MEMORY_EXCEEDED}

GREEDY: dict[str, tuple[str, dict[str, Any], set[RunStatus]]] = {
    "fork bomb of a shell": ("shell.exec", {"command": "b() { b | b & }; b; sleep 60"}, EITHER),
    "fork bomb that goes to other sessions": ("shell.exec", {"command": "b() { setsid sh -c \"$0\" & b; }; b; sleep 60", "shell": "/bin/bash"}, EITHER),
    "fork bomb of Python": ("code.python", {"code": "import os\ndef main():\n    while True:\n        try: os.fork()\n        except OSError: pass"}, EITHER),
    "bomb of threads": ("code.python", {"code": "import threading, time\ndef main():\n    while True: threading.Thread(target=time.sleep, args=(60,)).start()"}, EITHER),
    "memory bomb": ("code.python", {"code": "def main():\n    a = []\n    while True: a.append('x' * 10**6)"}, {RunStatus.MEMORY_EXCEEDED}),
    "filling the scratch space": ("shell.exec", {"command": "i=0; while [ $i -lt 20 ]; do dd if=/dev/zero of=/tmp/$i bs=1M count=3 2>/dev/null || exit 9; i=$((i+1)); done"}, EITHER),
    "filling the work folder": ("sandbox.exec", {"command": "i=0; while [ $i -lt 20 ]; do dd if=/dev/zero of=$i bs=1M count=3 2>/dev/null || exit 9; i=$((i+1)); done"}, EITHER),
    "a huge file": ("sandbox.exec", {"command": "exec dd if=/dev/zero of=big bs=1M count=64"}, {RunStatus.OUTPUT_EXCEEDED, RunStatus.FAILED}),
    "endless stdout": ("shell.exec", {"command": "yes"}, {RunStatus.OUTPUT_EXCEEDED}),
    "endless stderr in one line": ("shell.exec", {"command": "tr '\\0' x </dev/zero >&2"}, {RunStatus.OUTPUT_EXCEEDED}),
    "an endless log": ("code.python", {"code": "def main():\n    while True: print('x' * 80)"}, {RunStatus.OUTPUT_EXCEEDED}),
    "a giant result": ("code.python", {"code": "def main(): return 'x' * 10**5"}, {RunStatus.OUTPUT_EXCEEDED}),
    "giant files to collect": ("sandbox.exec", {"command": "head -c 60000 /dev/zero >big", "collect": ["big"]}, {RunStatus.OUTPUT_EXCEEDED}),
    "a loop": ("code.python", {"code": "def main():\n    while True: pass"}, {RunStatus.TIMED_OUT}),
    "a sleep that no signal ends": ("shell.exec", {"command": "trap '' HUP INT TERM QUIT USR1; while :; do sleep 60; done"}, {RunStatus.TIMED_OUT}),
    "a daemon that holds the streams": ("shell.exec", {"command": "setsid sh -c 'trap \"\" TERM; while :; do sleep 60; done' & sleep 60"}, {RunStatus.TIMED_OUT}),
    "a pipe that nobody writes": ("sandbox.exec", {"command": "mkfifo p; cat p"}, {RunStatus.TIMED_OUT}),
}  # fmt: skip


@pytest.mark.parametrize("name", GREEDY)
async def test_greed_ends_with_the_status_of_the_limit(box: NamespaceBox, name: str) -> None:
    node_type, config, statuses = GREEDY[name]
    error = (await run_node(box, node_type, {**SMALL, **config})).error
    assert status_of(error) in statuses, error
    assert error.node_id == "it"


@pytest.mark.parametrize("name", [name for name, (_, _, statuses) in GREEDY.items() if len(statuses) == 1])
async def test_the_limit_that_was_hit_is_named_with_what_raises_it(box: NamespaceBox, name: str) -> None:
    node_type, config, _ = GREEDY[name]
    error = (await run_node(box, node_type, {**SMALL, **config})).error
    assert error.details is not None
    assert error.details["raise_with"] in SMALL
    assert f"raise {error.details['raise_with']}" in error.message


async def test_a_fork_bomb_does_not_pass_for_a_success_and_its_limit_is_told(box: NamespaceBox) -> None:
    code = "import subprocess\ndef main():\n    return len([subprocess.Popen(['sleep', '60']) for _ in range(50)])"
    error = (await run_node(box, "code.python", {**SMALL, "code": code})).error
    assert error.kind is ErrorKind.USER
    assert "12 processes and threads at once" in error.message
    assert error.details is not None
    assert (error.details["limit"], error.details["raise_with"]) == (12, "pids")
