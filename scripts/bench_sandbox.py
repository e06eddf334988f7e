"""Measures sandboxes beside the plain programs that they are made of, in the same run, in alternating rounds.

Another sandbox joins by one more `Row` in `rows`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from schemas.errors import Unavailable
from workers.sandboxes.box.base import BoxLimits, CommandOrder, Exited, PythonOrder, Returned, ignore_output
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.open import open_box

#: What stands between a program and the machine in the usual bwrap command line; no seccomp, cgroups or limits.
BWRAP = ("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev",
         "--tmpfs", "/tmp", "--cap-drop", "ALL", "--clearenv")  # fmt: skip
LIMITS = BoxLimits(timeout=timedelta(seconds=30))
TRIVIAL = PythonOrder(source="def main(): return 1", inputs={}, app="bench", limits=LIMITS)
TRUE = CommandOrder(argv=("true",), app="bench", limits=LIMITS)
#: Seconds between two runs when latency is measured, the same for every row: orders come now and then, not in a row.
PAUSE = 0.02


@dataclass
class Row:
    name: str
    title: str
    once: Callable[[], Awaitable[None]]
    #: Run at once when throughput is measured; 0 leaves that out.
    parallel: int = 4
    taken: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)


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
                await one_by_one(row, runs)
            for row in found:
                await at_once(row, runs)
        return found


async def rows(stack: AsyncExitStack) -> list[Row]:
    """List what can be measured on this machine; opened sandboxes are closed with the stack."""
    found = [Row("fork_exec", "fork and exec, no sandbox", lambda: program("true"))]
    if shutil.which("bwrap"):
        found += [
            Row("bwrap_true", "bwrap, true", lambda: program(*BWRAP, "true")),
            Row("bwrap_python", "bwrap, cold python3 -I -S", lambda: program(*BWRAP, *COLD_PYTHON)),
        ]
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


COLD_PYTHON = (sys.executable, "-I", "-S", "-c", "def main(): return 1\nprint(main())")


async def program(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    if await process.wait() != 0:
        raise RuntimeError(f"{command[0]} ended with code {process.returncode}")


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


async def one_by_one(row: Row, runs: int) -> None:
    for _ in range(runs):
        began = time.perf_counter()
        await row.once()
        row.taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(PAUSE)


async def at_once(row: Row, runs: int) -> None:
    if not row.parallel:
        return
    left = iter(range(runs))

    async def caller() -> None:
        for _ in left:
            await row.once()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(row.parallel)))
    row.per_second.append(runs / (time.perf_counter() - began))


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
    """How many times quicker a fresh box is than bwrap with a cold Python, which does less."""
    cold = figures.get("bwrap_python")
    return {
        f"bwrap_python_to_{name}": round(cold["p50_ms"] / figures[name]["p50_ms"], 2)
        for name in ("zygote_python_ready", "zygote_python", "bubblewrap_python_ready")
        if cold and name in figures
    }


def show(measured: list[Row], figures: dict[str, Any]) -> None:
    table = Table(title="Sandboxes, one run each time")
    for column in ("", "p50 ms", "p99 ms", "runs/s, 4 at once"):
        table.add_column(column, justify="left" if not column else "right")
    for row in measured:
        found = figures[row.name]
        table.add_row(row.title, f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}", str(found.get("per_s", "")))
    Console().print(table)


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release(),
            "load": round(os.getloadavg()[0], 2)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
