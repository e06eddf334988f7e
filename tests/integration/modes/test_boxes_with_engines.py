"""Real boxes with real engines in them: what is kept apart, what is ended, and what lives on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from in_mode import InMode, opened

from schemas.outcome import ErrorKind, Failed, Succeeded
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode
from workers.engine.sink import MemorySink

_BOXED = [ExecutionMode.SANDBOX_PROCESS, ExecutionMode.SANDBOX_CODE_AND_PROCESS]


class Listening(MemorySink):
    """Wakes whoever waits for a node."""

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[str, asyncio.Event] = {}

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        if happening.type is EventType.NODE_STARTED and happening.node_id:
            self.at(happening.node_id).set()

    def at(self, node_id: str) -> asyncio.Event:
        return self.started.setdefault(node_id, asyncio.Event())


def engines() -> list[int]:
    """The processes of engines in boxes: what imports them is warm, and sits in its own namespaces."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and _descends_from_here(int(place.name)) and _has_channel(place):
            found.append(int(place.name))
    return found


def _descends_from_here(pid: int) -> bool:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == os.getpid():
            return True
    return False


def _has_channel(place: Path) -> bool:
    """An engine is the one process of its box that has an epoll: it runs an event loop."""
    try:
        return any("eventpoll" in str(fd.readlink()) for fd in (place / "fd").iterdir()) and b"-c" in (
            place / "cmdline"
        ).read_bytes().split(b"\0")
    except OSError:
        return False


async def test_a_box_of_one_run_is_used_once(per_run: InMode) -> None:
    left = {"code": "import fs from 'node:fs'; export default () => { fs.writeFileSync('/tmp/mine', 'x'); return 1; }"}
    found = {"code": "import fs from 'node:fs'; export default () => ({there: fs.existsSync('/tmp/mine')})"}

    await per_run.result("code.javascript", left)

    assert (await per_run.result("code.javascript", found))["there"] is False


async def test_the_nodes_of_one_run_share_its_box(per_run: InMode) -> None:
    flow = {
        "name": "two",
        "nodes": [
            {"id": "put", "node_type": "shell.exec", "config": {"command": "echo kept > /tmp/mine"}},
            {"id": "get", "node_type": "shell.exec", "config": {"command": "cat /tmp/mine"}},
        ],
        "connections": [{"from_node": "put", "from_port": "exit_code", "to_node": "get", "to_port": "input"}],
    }

    outcome = await per_run.run(per_run.order_flow(flow))

    assert isinstance(outcome, Succeeded), outcome
    assert "kept" in str(outcome.result)


async def test_code_that_ends_its_engine_ends_its_own_run_only(per_run: InMode) -> None:
    murder = {"command": "kill -9 $(cat /proc/[0-9]*/stat | awk '$1 != 1 {print $1; exit}'); kill -9 -1; sleep 5"}
    honest = asyncio.create_task(per_run.run(per_run.order("shell.exec", {"command": "sleep 0.3; echo fine"})))

    error = await per_run.error("shell.exec", murder)

    assert error.kind is ErrorKind.KILLED
    assert "ended the engine of its own box" in error.message
    assert isinstance(await honest, Succeeded)
    assert (await per_run.result("shell.exec", {"command": "echo next"}))["stdout"].strip() == "next"


async def test_a_frozen_engine_does_not_outlive_its_flows_limit(per_run: InMode) -> None:
    freeze = {"command": "kill -STOP -1; sleep 60"}

    error = await per_run.error("shell.exec", freeze, settings={"max_execution_time_ms": 500})

    assert error.kind is ErrorKind.TIMED_OUT
    assert (await per_run.result("shell.exec", {"command": "echo next"}))["stdout"].strip() == "next"


async def test_a_box_that_eats_too_much_memory_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    eat = {"command": "python3 -c \"a=[]\nwhile True: a.append(b'x'*1000000)\"", "memory_mb": 4096}
    async with opened(ExecutionMode.SANDBOX_PROCESS, tmp_path, FLO_BOX_MEMORY_MB="200") as worker:
        error = await worker.error("shell.exec", eat)
        after = await worker.result("shell.exec", {"command": "echo next"})

    assert error.kind is ErrorKind.MEMORY_EXCEEDED
    assert after["stdout"].strip() == "next"


@pytest.mark.parametrize("mode", _BOXED)
async def test_a_cancelled_run_leaves_nothing_running(mode: ExecutionMode, tmp_path: Path) -> None:
    events = Listening()
    async with opened(mode, tmp_path) as worker:
        run = asyncio.create_task(worker.run(worker.order("shell.exec", {"command": "sleep 3333"}), events))
        await events.at("it").wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        assert not [place for place in _commands() if b"3333" in place]
        assert (await worker.result("shell.exec", {"command": "echo next"}))["stdout"].strip() == "next"


def _commands() -> list[bytes]:
    """The command lines of this process's family; tests beside this one have the same commands."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and _descends_from_here(int(place.name)):
            try:
                found.append((place / "cmdline").read_bytes())
            except OSError:
                continue
    return found


async def test_when_an_apps_box_is_killed_its_runs_go_on_and_repeat_nothing(per_app: InMode) -> None:
    flow = {
        "name": "long",
        "nodes": [
            {"id": "first", "node_type": "shell.exec", "config": {"command": "echo done"}},
            {"id": "second", "node_type": "time.delay", "config": {"delay_ms": 700}},
        ],
        "connections": [{"from_node": "first", "from_port": "stdout", "to_node": "second", "to_port": "data"}],
    }
    sinks = [Listening() for _ in range(3)]
    runs = [asyncio.create_task(per_app.run(per_app.order_flow(flow), sink)) for sink in sinks]
    for sink in sinks:
        await sink.at("second").wait()
    for pid in engines():
        with contextlib.suppress(ProcessLookupError):  # a spare that was being made, and is gone
            os.kill(pid, signal.SIGKILL)

    assert [type(outcome) for outcome in await asyncio.gather(*runs)] == [Succeeded] * 3, await runs[0]
    starts = [[said.node_id for said in sink.happenings if said.type is EventType.NODE_STARTED] for sink in sinks]
    assert starts == [["first", "second", "second"]] * 3


async def test_a_nodes_line_is_heard_while_it_runs(per_app: InMode) -> None:
    heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    class Sink(MemorySink):
        def emit(self, happening: Happening) -> None:
            super().emit(happening)
            if happening.type is EventType.LOG and not heard.done():
                heard.set_result(happening.data)

    run = asyncio.create_task(
        per_app.run(per_app.order("shell.exec", {"command": "echo now; sleep 1000", "timeout_ms": 60000}), Sink())
    )

    assert (await heard)["message"] == "now"
    run.cancel()
    await asyncio.wait([run])


@pytest.mark.parametrize("mode", _BOXED)
async def test_packages_are_prepared_by_the_worker_for_code_in_a_box(mode: ExecutionMode, tmp_path: Path) -> None:
    code = {"code": "import {isEven} from './none.js'; export default () => 1", "dependencies": {}}
    typed = {"code": "const broken: = 1; export default () => 1"}
    async with opened(mode, tmp_path) as worker:
        error = await worker.error("code.typescript", typed)
        other = await worker.run(worker.order("code.javascript", code))

    assert error.kind is ErrorKind.SYNTAX
    assert "it.ts:1" in error.message
    assert isinstance(other, Failed)
