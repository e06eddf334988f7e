"""Nodes that run alone, in real sandboxes: what holds for nodes among others holds for them, in every mode."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from in_mode import SANDBOXED, InMode, opened
from test_boxes_with_engines import _commands
from test_way_out import site

from schemas.app import AppLimits
from schemas.outcome import ErrorKind, Failed, Succeeded
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode
from workers.engine.sink import MemorySink
from workers.sandboxes.box.open import WAYS

__all__ = ["site"]

_BOXED = [ExecutionMode.SANDBOX_PROCESS, ExecutionMode.SANDBOX_CODE_AND_PROCESS]
_WITH_COMMANDS = [*_BOXED, ExecutionMode.UNSANDBOXED]
_OPEN = {"FLO_ALLOW_PRIVATE_NETWORK": "true"}


def alone(node_id: str, node_type: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": node_id, "node_type": node_type, "config": config, "execution_mode": "sandbox", **more}


def flow(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "flow", "nodes": list(nodes), **more}


async def failure(worker: InMode, *nodes: dict[str, Any], **more: Any) -> Any:
    outcome = await worker.run(worker.order_flow(flow(*nodes), **more))
    assert isinstance(outcome, Failed), outcome
    return outcome.error


async def test_it_gives_what_it_would_among_others_and_is_heard_in_order(any_mode: InMode) -> None:
    code = {"code": "export default ({n}) => { console.log('n is', n); return {twice: n * 2, is: typeof process}; }"}
    after = {"code": "export default ({twice, is}) => ({twice, is})"}
    wires = [
        {"from_node": "a", "from_port": "twice", "to_node": "b", "to_port": "twice"},
        {"from_node": "a", "from_port": "is", "to_node": "b", "to_port": "is"},
    ]
    apart, inline = MemorySink(), MemorySink()
    first = flow(alone("a", "code.javascript", code), alone("b", "code.javascript", after), connections=wires)
    second = flow(*({**node, "execution_mode": "inline"} for node in first["nodes"]), connections=wires)

    results = [
        await any_mode.run(any_mode.order_flow(first, payload={"n": 21}), apart),
        await any_mode.run(any_mode.order_flow(second, payload={"n": 21}), inline),
    ]

    assert results[0] == results[1]
    assert isinstance(results[0], Succeeded)
    assert [(said.type, said.node_id) for said in apart.happenings] == [
        (said.type, said.node_id) for said in inline.happenings
    ]
    assert [said.data["message"] for said in apart.happenings if said.type is EventType.LOG] == ["n is 21"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", _WITH_COMMANDS)
async def test_every_way_into_a_box_gives_nodes_boxes(
    mode: ExecutionMode, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sandboxes.box.open.WAYS", (way,))
    python = alone("py", "code.python", {"code": "def main():\n    return {'py': 2}"})
    shell = alone("sh", "shell.exec", {"command": "echo left > /tmp/mine; id -u"}, resources={"memory_mb": 256})
    found = alone("look", "shell.exec", {"command": "ls /tmp/mine; true"})
    wire = {"from_node": "sh", "from_port": "success", "to_node": "look", "to_port": "input"}
    async with opened(mode, tmp_path, FLO_SOLO="box") as worker:
        outcome = await worker.run(worker.order_flow(flow(python, shell, found, connections=[wire])))

    assert isinstance(outcome, Succeeded), outcome
    result: Any = outcome.result
    assert result["py"]["py"] == 2
    assert result["look"]["stdout"] == ""  # another box: what the node before it has left is gone with its own


@pytest.mark.parametrize("mode", list(ExecutionMode))
async def test_code_that_wants_more_memory_than_its_node_has_is_told_so(mode: ExecutionMode, tmp_path: Path) -> None:
    eat = "export default () => { const a = []; for (;;) a.push(new Uint8Array(1000000).fill(1)); }"
    node = alone("a", "code.javascript", {"code": eat, "memory_mb": 2000}, resources={"memory_mb": 200})
    async with opened(mode, tmp_path, FLO_SOLO="box") as worker:
        error = await failure(worker, node)
        after = await worker.run(
            worker.order_flow(flow(alone("b", "code.javascript", {"code": "export default () => 1"})))
        )

    assert error.kind is ErrorKind.MEMORY_EXCEEDED
    assert error.node_id == "a"
    assert error.details["raise_with"] in ("resources.memory_mb", "memory_mb")
    assert isinstance(after, Succeeded)


async def test_a_command_that_wants_too_much_names_the_nodes_own_limit(per_app: InMode) -> None:
    eat = {"command": "python3 -c \"a=[]\nwhile True: a.append(b'x'*1000000)\"", "memory_mb": 4096}

    error = await failure(per_app, alone("a", "shell.exec", eat, resources={"memory_mb": 150}))

    assert (error.kind, error.details) == (
        ErrorKind.MEMORY_EXCEEDED, {"limit": 150, "raise_with": "resources.memory_mb"},
    )  # fmt: skip


@pytest.mark.parametrize("mode", _BOXED)
async def test_what_ends_the_engine_of_its_sandbox_ends_its_own_node_only(mode: ExecutionMode, tmp_path: Path) -> None:
    murder = alone("a", "shell.exec", {"command": "kill -9 -1; sleep 5"})
    honest = {"id": "b", "node_type": "shell.exec", "config": {"command": "sleep 0.3; echo fine"}}
    async with opened(mode, tmp_path) as worker:
        order = worker.order_flow(flow(murder, honest, settings={"on_error": "ContinueOnError"}))
        events = MemorySink()
        outcome = await worker.run(order, events)

    assert isinstance(outcome, Succeeded), outcome
    (failed,) = [said for said in events.happenings if said.type is EventType.NODE_FAILED]
    assert failed.node_id == "a"
    assert failed.data["error"]["kind"] == "killed"  # type: ignore[index, call-overload]
    assert [said.node_id for said in events.happenings if said.type is EventType.NODE_COMPLETED] == ["b"]


@pytest.mark.parametrize("mode", _BOXED)
async def test_a_frozen_engine_does_not_outlive_its_nodes_limit(mode: ExecutionMode, tmp_path: Path) -> None:
    freeze = alone("a", "shell.exec", {"command": "kill -STOP -1; sleep 60"}, resources={"timeout_ms": 300})
    async with opened(mode, tmp_path) as worker:
        error = await failure(worker, freeze)

    assert (error.kind, error.details["raise_with"]) == (ErrorKind.TIMED_OUT, "resources.timeout_ms")


@pytest.mark.parametrize("mode", _WITH_COMMANDS)
async def test_a_cancelled_run_leaves_nothing_of_its_nodes_sandboxes(mode: ExecutionMode, tmp_path: Path) -> None:
    started: asyncio.Event = asyncio.Event()

    class Sink(MemorySink):
        def emit(self, happening: Happening) -> None:
            super().emit(happening)
            if happening.type is EventType.LOG:
                started.set()

    async with opened(mode, tmp_path) as worker:
        sleep = alone("a", "shell.exec", {"command": "echo now; sleep 4444"})
        run = asyncio.create_task(worker.run(worker.order_flow(flow(sleep)), Sink()))
        await started.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        assert not [place for place in _commands() if b"4444" in place]


@pytest.mark.parametrize("mode", _BOXED)
async def test_a_failure_elsewhere_stops_it_before_the_run_is_over(mode: ExecutionMode, tmp_path: Path) -> None:
    sleep = alone("a", "shell.exec", {"command": "echo now; sleep 5555"})
    fails = alone("b", "shell.exec", {"command": "sleep 0.2; false"})
    async with opened(mode, tmp_path) as worker:
        error = await failure(worker, sleep, fails)

        assert error.node_id == "b"
        assert not [place for place in _commands() if b"5555" in place]


@pytest.mark.parametrize("mode", list(ExecutionMode))
async def test_a_request_goes_out_from_its_own_sandbox_as_far_as_its_app_may(
    mode: ExecutionMode, site: str, tmp_path: Path
) -> None:
    ask = alone("a", "http.request", {"url": f"{site}/", "timeout_ms": 600_000})
    async with opened(mode, tmp_path, **_OPEN) as worker:
        worker.limits["closed"] = AppLimits(egress="none")
        found = await worker.run(worker.order_flow(flow(ask)))
        error = await failure(worker, ask, app="closed")

    assert isinstance(found, Succeeded), found
    assert found.result["json"] == {"here": True}  # type: ignore[index, call-overload]
    assert error.kind is ErrorKind.FORBIDDEN


@pytest.mark.parametrize("mode", list(ExecutionMode))
async def test_addresses_that_are_not_public_are_out_of_its_reach_too(
    mode: ExecutionMode, site: str, tmp_path: Path
) -> None:
    async with opened(mode, tmp_path) as worker:
        error = await failure(worker, alone("a", "http.request", {"url": f"{site}/"}))

    assert error.kind is ErrorKind.FORBIDDEN


@pytest.mark.parametrize("mode", [ExecutionMode.SANDBOX_CODE_ONLY, *_BOXED])
async def test_parts_of_its_work_are_durable_before_it_goes_on(mode: ExecutionMode, site: str, tmp_path: Path) -> None:
    flushed: list[int] = []

    class Sink(MemorySink):
        async def flush(self) -> None:
            flushed.append(sum("part" in said.data for said in self.happenings))

    inner = {"node_type": "http.request", "config": {"url": f"{site}/"}}
    node = alone("a", "flow.map", {"node": inner, "items": [1, 2, 3], "max_parallel": 1})
    async with opened(mode, tmp_path, **_OPEN) as worker:
        outcome = await worker.run(worker.order_flow(flow(node)), Sink())

    assert isinstance(outcome, Succeeded), outcome
    assert set(flushed) >= {1, 2, 3}


@pytest.mark.parametrize("mode", [ExecutionMode.UNSANDBOXED, ExecutionMode.SANDBOX_CODE_ONLY])
async def test_where_no_box_works_it_has_a_process_of_its_own(
    mode: ExecutionMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sandboxes.box.open.WAYS", ())
    code = {"code": "export default ({n}) => ({n: n + 1})"}
    async with opened(mode, tmp_path) as worker:
        outcome = await worker.run(worker.order_flow(flow(alone("a", "code.javascript", code)), payload={"n": 1}))

    assert isinstance(outcome, Succeeded), outcome
    assert outcome.result["n"] == 2  # type: ignore[index, call-overload]


@pytest.mark.parametrize("mode", _BOXED)
async def test_a_mode_with_walls_never_gives_a_node_less(mode: ExecutionMode, tmp_path: Path) -> None:
    async with opened(mode, tmp_path, FLO_SOLO="process") as worker:
        error = await failure(worker, alone("a", "debug.log", {"message": "m"}))

    assert error.kind is ErrorKind.FORBIDDEN
    assert f"a process of its own has no wall around it, and this run is due {mode}" in error.message


@pytest.mark.parametrize("mode", SANDBOXED)
async def test_places_are_counted_for_the_whole_worker_and_who_waits_says_so(
    mode: ExecutionMode, tmp_path: Path
) -> None:
    nap = {"code": "export default async () => { const t = Date.now(); while (Date.now() - t < 150); return 1; }"}
    sinks = [MemorySink() for _ in range(3)]
    async with opened(mode, tmp_path, FLO_MAX_SOLO_NODES="1") as worker:
        orders = [worker.order_flow(flow(alone("a", "code.javascript", nap)), app=f"app{n}") for n in range(3)]
        outcomes = await asyncio.gather(*(worker.run(order, sink) for order, sink in zip(orders, sinks, strict=True)))

    assert [type(outcome) for outcome in outcomes] == [Succeeded] * 3
    waited = [said for sink in sinks for said in sink.happenings if said.type is EventType.LOG]
    assert len(waited) == 2
    assert str(waited[0].data["message"]).startswith("waits for a place: 1 node runs alone")


async def test_the_example_runs(any_mode: InMode) -> None:
    raw = json.loads((Path(__file__).parents[3] / "examples" / "crunch_alone.json").read_text())

    assert await any_mode.run(any_mode.order_flow(raw, payload={"n": 10})) == Succeeded(result=55)


_PROGRAM = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {here!r}]
from in_mode import opened
from test_boxes_with_engines import Listening
from schemas.run import EventType
from schemas.settings import ExecutionMode

class Sink(Listening):
    def emit(self, happening):
        super().emit(happening)
        if happening.type is EventType.LOG:
            print("started", flush=True)

async def main():
    async with opened(ExecutionMode({mode!r}), Path({home!r})) as worker:
        node = {{"id": "a", "node_type": "shell.exec", "config": {{"command": "echo now; sleep {mark}"}},
                "execution_mode": "sandbox"}}
        await worker.run(worker.order_flow({{"name": "x", "nodes": [node]}}), Sink())

asyncio.run(main())
"""


@pytest.mark.parametrize("mode", [ExecutionMode.UNSANDBOXED, *_BOXED])
async def test_when_its_worker_is_killed_nothing_of_its_sandbox_is_left(mode: ExecutionMode, tmp_path: Path) -> None:
    mark = f"77{os.getpid()}"
    here = Path(__file__).parent
    program = _PROGRAM.format(root=str(here.parents[2]), here=str(here), mode=str(mode), home=str(tmp_path), mark=mark)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    try:
        async with asyncio.timeout(60):
            while await worker.stdout.readline() != b"started\n":
                assert not worker.stdout.at_eof(), "the worker ended before its node began"
    finally:
        worker.kill()
        await worker.wait()

    async with asyncio.timeout(20):
        while any(mark.encode() in place for place in _commands()):  # noqa: ASYNC110 - nobody is left to tell us
            await asyncio.sleep(0.05)
