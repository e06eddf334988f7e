"""Measures sandboxes beside the plain programs that they are made of, in the same run, in alternating rounds.

Another sandbox joins by one more `Row` in `rows`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from schemas.catalog import load_catalog
from schemas.errors import Unavailable
from schemas.flow import FlowDocument
from schemas.json import JSONObject
from schemas.outcome import Succeeded
from schemas.settings import ExecutionMode, load_settings
from schemas.validation import read_document
from scripts.isolates import Isolates
from workers.engine.sink import MemorySink
from workers.executors.base import Executor, RunOrder
from workers.executors.openings import Openings
from workers.sandboxes.base import CodeOrder, CodeReturned, CodeSandbox
from workers.sandboxes.box.base import BoxLimits, CommandOrder, Exited, PythonOrder, Returned, ignore_output
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.open import open_box
from workers.sandboxes.plain_node import PlainNodePool
from workers.sandboxes.v8.open import open_v8

#: What stands between a program and the machine in the usual bwrap command line; no seccomp, cgroups or limits.
BWRAP = ("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev",
         "--tmpfs", "/tmp", "--cap-drop", "ALL", "--clearenv")  # fmt: skip
LIMITS = BoxLimits(timeout=timedelta(seconds=30))
TRIVIAL = PythonOrder(source="def main(): return 1", inputs={}, app="bench", limits=LIMITS)
TRUE = CommandOrder(argv=("true",), app="bench", limits=LIMITS)
DOCKER = ("docker", "run", "--rm", "--network", "none", "busybox", "true")
#: Times as many runs of what takes about a millisecond.
BURST = 20
#: Seconds between two rows: what the last one makes ahead for its next run is none of the next row's time.
REST = 0.5
#: Seconds between two runs when latency is measured, the same for every row: orders come now and then, not in a row.
PAUSE = 0.02


JAVASCRIPT = CodeOrder(
    source="export default ({name}) => ({text: `hello ${name}`})", inputs={"name": "flo"}, app="bench",
    timeout=timedelta(seconds=30), memory_mb=64,
)  # fmt: skip


FLOW: JSONObject = {
    "name": "hello",
    "nodes": [{"id": "greet", "node_type": "code.javascript", "config": {"code": JAVASCRIPT.source, "memory_mb": 64}}],
    "connections": [],
}


@dataclass
class Row:
    name: str
    title: str
    once: Callable[[], Awaitable[None]]
    #: Run at once when throughput is measured; 0 leaves that out.
    parallel: int = 4
    #: Times as many runs when throughput is measured: for what is too quick to be measured by a few.
    burst: int = 1
    taken: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)

    async def one_by_one(self, runs: int) -> None:
        for _ in range(runs):
            began = time.perf_counter()
            await self.once()
            self.taken.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE)

    async def at_once(self, runs: int) -> None:
        if not self.parallel:
            return
        left = iter(range(runs * self.burst))

        async def caller() -> None:
            for _ in left:
                await self.once()

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(self.parallel)))
        self.per_second.append(runs * self.burst / (time.perf_counter() - began))


class IsolatesRow(Row):
    """A loop inside Node, which takes its own time: one process for latency, one per core for throughput."""

    def __init__(self, name: str, title: str, isolates: Isolates, *, burst: int) -> None:
        super().__init__(name, title, self._never, burst=burst)
        self._isolates = isolates

    async def _never(self) -> None:
        await self._isolates.one_by_one(1, pause=0)

    async def one_by_one(self, runs: int) -> None:
        self.taken += await self._isolates.one_by_one(runs, pause=PAUSE)

    async def at_once(self, runs: int) -> None:
        if self.burst:
            self.per_second.append(await self._isolates.per_second(runs * self.burst))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=20, help="runs per row and round (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=4, help="rounds, alternating (default: %(default)s)")
    given = options.parse_args()
    measured = asyncio.run(measure(given.runs, given.rounds))
    figures = {row.name: summary(row) for row in measured}
    figures["ratios"] = ratios(figures)
    figures["runs_per_row"] = given.runs * given.rounds
    show(measured, figures)
    print(json.dumps({"name": "sandbox", "machine": machine(), "figures": figures}))
    return 0


async def measure(runs: int, rounds: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        found = await rows(stack)
        for row in found:
            for _ in range(5):
                await row.once()
        for _ in range(rounds):
            for row in found:
                await asyncio.sleep(REST)
                await row.one_by_one(runs)
            for row in found:
                await asyncio.sleep(REST)
                await row.at_once(runs)
        return found


async def rows(stack: AsyncExitStack) -> list[Row]:
    """List what can be measured on this machine; opened sandboxes are closed with the stack."""
    found = [Row("fork_exec", "fork and exec, no sandbox", lambda: program("true"))]
    if shutil.which("bwrap"):
        found += [
            Row("bwrap_true", "bwrap, true", lambda: program(*BWRAP, "true")),
            Row("bwrap_python", "bwrap, cold python3 -I -S", lambda: program(*BWRAP, *COLD_PYTHON)),
        ]
    if await docker_answers():
        found.append(Row("docker_run", "docker run, true", lambda: program(*DOCKER), parallel=2))
    found += await javascript(stack)
    found += await boxed_runs(stack)
    for way, short in (("zygote", "zygote"), ("bubblewrap", "bubblewrap")):
        try:
            ready = await open_box(way=way, spares=2)
            fresh = await open_box(way=way, spares=0)
        except Unavailable as reason:
            print(f"left out: {reason}", file=sys.stderr)
            continue
        stack.push_async_callback(ready.aclose)
        stack.push_async_callback(fresh.aclose)
        found += [
            Row(f"{short}_python_ready", f"box by {way}: main(), one kept ready", call(ready)),
            Row(f"{short}_python", f"box by {way}: main(), made on order", call(fresh)),
            Row(f"{short}_command", f"box by {way}: true, made on order", run(fresh)),
        ]
    return found


async def javascript(stack: AsyncExitStack) -> list[Row]:
    """V8 in the jail that workers have, isolated-vm by itself beside it, and plain Node."""
    v8 = await open_v8()
    stack.push_async_callback(v8.aclose)
    plain = await stack.enter_async_context(PlainNodePool(warm_memory_mb=JAVASCRIPT.memory_mb))
    loops = [
        ("v8_raw", "isolated-vm by itself: a new isolate", "raw", BURST),
        ("v8_same_app", "isolated-vm by itself: a new context, isolate kept", "context", BURST),
        ("v8_code", "the JavaScript alone, isolate made before", "code", 0),
    ]
    found = [Row("v8_fresh", f"V8, fresh isolate, host in a box by {v8.jail or 'nothing'}", evaluate(v8), 32, BURST)]
    for name, title, kind, burst in loops:
        isolates = await stack.enter_async_context(Isolates(kind, JAVASCRIPT))
        found.append(IsolatesRow(name, title, isolates, burst=burst))
    return [*found, Row("plain_node", "plain Node, fresh thread, no sandbox", evaluate(plain))]


async def boxed_runs(stack: AsyncExitStack) -> list[Row]:
    """Whole runs of a flow of one code node, by the executors of the modes that box the engine."""
    home = stack.enter_context(tempfile.TemporaryDirectory())
    openings = Openings(load_settings({"FLO_HOME": home}))
    stack.push_async_callback(openings.aclose)
    document, _ = read_document(FLOW, catalog=load_catalog(), max_inline_http=timedelta(minutes=5))
    found = []
    for mode, name, title in (
        (ExecutionMode.SANDBOX_CODE_AND_PROCESS, "app_box", "a run of one code node, in its app's warm box"),
        (ExecutionMode.SANDBOX_PROCESS, "run_box", "a run of one code node, in a box of its own"),
    ):
        try:
            executor = await openings.all()[mode]()
        except Unavailable as reason:
            print(f"left out: {title} ({reason})", file=sys.stderr)
            continue
        stack.push_async_callback(executor.aclose)
        found.append(Row(name, title, execute(executor, document)))
    return found


def execute(executor: Executor, document: FlowDocument) -> Callable[[], Awaitable[None]]:
    numbers = itertools.count(1)

    async def once() -> None:
        order = RunOrder(
            run_id=f"run_{next(numbers)}", app="bench", flow="hello", version=1, attempt=1, document=document,
            payload={"name": "flo"}, backend_config={},
        )  # fmt: skip
        found = await executor.run(order, MemorySink())
        if not isinstance(found, Succeeded):
            raise RuntimeError(f"the run ended as {found}")

    return once


def evaluate(sandbox: CodeSandbox) -> Callable[[], Awaitable[None]]:
    async def once() -> None:
        found = await sandbox.run(JAVASCRIPT, lambda level, text: None)
        if not isinstance(found, CodeReturned):
            raise RuntimeError(found.error.message)

    return once


async def docker_answers() -> bool:
    """Tell whether a docker daemon answers, and has or gets the image."""
    if not shutil.which("docker"):
        return False
    try:
        await program(*DOCKER)
    except RuntimeError as reason:
        print(f"left out: {str(reason).splitlines()[0]}", file=sys.stderr)
        return False
    return True


COLD_PYTHON = (sys.executable, "-I", "-S", "-c", "def main(): return 1\nprint(main())")


async def program(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode != 0:
        why = said.decode(errors="replace").strip()
        raise RuntimeError(f"{command[0]} ended with code {process.returncode}: {why}")


def call(box: NamespaceBox) -> Callable[[], Awaitable[None]]:
    async def once() -> None:
        found = await box.run_python(TRIVIAL, ignore_output)
        if not isinstance(found, Returned):
            raise RuntimeError(found.error.message)

    return once


def run(box: NamespaceBox) -> Callable[[], Awaitable[None]]:
    async def once() -> None:
        found = await box.run(TRUE, ignore_output)
        if not isinstance(found, Exited):
            raise RuntimeError(found.error.message)

    return once


def summary(row: Row) -> dict[str, Any]:
    ordered = sorted(row.taken)
    figures = {
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))], 2),
    }
    if row.per_second:
        figures["per_s"] = round(statistics.median(row.per_second), 1)
    return figures


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """How V8 stands to its parts, and how many times quicker a fresh box is than bwrap with a cold Python."""
    cold = figures.get("bwrap_python")
    v8, raw, code = figures["v8_fresh"], figures["v8_raw"], figures["v8_code"]
    return {
        "v8_p50_ms_over_the_code": round(v8["p50_ms"] - code["p50_ms"], 2),
        "v8_throughput_to_raw": round(v8["per_s"] / raw["per_s"], 2),
    } | {
        f"bwrap_python_to_{name}": round(cold["p50_ms"] / figures[name]["p50_ms"], 2)
        for name in ("zygote_python_ready", "zygote_python", "bubblewrap_python_ready")
        if cold and name in figures
    }


def show(measured: list[Row], figures: dict[str, Any]) -> None:
    table = Table(title="Sandboxes, one run each time")
    for column in ("", "p50 ms", "p99 ms", "runs/s, several at once"):
        table.add_column(column, justify="left" if not column else "right")
    for row in measured:
        found = figures[row.name]
        table.add_row(row.title, f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}", str(found.get("per_s", "")))
    Console().print(table)
    for name, ratio in figures["ratios"].items():
        print(f"{name.replace('_', ' ')}: {ratio:g}")


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release(),
            "load": round(os.getloadavg()[0], 2)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
