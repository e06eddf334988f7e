"""Measures what a sandbox of its own costs a node: the same flow with its node among others and alone, alternating."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from schemas.catalog import load_catalog
from schemas.flow import FlowDocument
from schemas.outcome import Succeeded
from schemas.settings import ExecutionMode, load_settings
from schemas.validation import read_document
from workers.engine.sink import MemorySink
from workers.executors.base import Executor, RunOrder
from workers.executors.openings import Openings

#: Seconds after which the sandbox that is made ahead for the next run is ready.
REFILL = 1.0
NODES: dict[str, dict[str, Any]] = {
    "log": {"id": "it", "node_type": "debug.log", "config": {"message": "m"}},
    "code": {"id": "it", "node_type": "code.javascript", "config": {"code": "export default () => 1"}},
}
_numbers = itertools.count(1)


@dataclass
class Row:
    node: str
    sandbox: str
    document: FlowDocument
    taken: list[float] = field(default_factory=list)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=30, help="runs per row (default: %(default)s)")
    options.add_argument("--mode", type=ExecutionMode, default=ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    given = options.parse_args()
    rows = asyncio.run(measure(given.mode, given.runs))
    figures = figures_of(rows)
    show(rows, figures)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({"name": "solo", "machine": machine, "figures": {"mode": str(given.mode), **figures}}))
    return 0


async def measure(mode: ExecutionMode, runs: int) -> list[Row]:
    rows = [
        Row(node, sandbox, document(NODES[node], alone=sandbox != "none"))
        for node in NODES
        for sandbox in ("none", "kept ready", "made on order")
    ]
    async with AsyncExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        openings = Openings(load_settings({"FLO_HOME": home}))
        stack.push_async_callback(openings.aclose)
        executor = await openings.all()[mode]()
        stack.push_async_callback(executor.aclose)
        for row in rows:
            await once(executor, row)
            row.taken.clear()
        for row in rows * runs:
            await once(executor, row)  # takes what was made ahead, which may be for another node, and is not counted
            row.taken.pop()
            await asyncio.sleep(REFILL if row.sandbox == "kept ready" else 0.0)
            await once(executor, row)
    return rows


def document(node: dict[str, Any], *, alone: bool) -> FlowDocument:
    raw = {"name": "solo", "nodes": [{**node, **({"execution_mode": "sandbox"} if alone else {})}]}
    return read_document(raw, catalog=load_catalog(), max_inline_http=timedelta(minutes=5))[0]


async def once(executor: Executor, row: Row) -> None:
    number = next(_numbers)
    order = RunOrder(
        run_id=f"run_{number}", app="bench", flow=f"{row.node} {row.sandbox}", version=1, attempt=1,
        document=row.document, payload={}, backend_config={},
    )  # fmt: skip
    began = time.perf_counter()
    found = await executor.run(order, MemorySink())
    row.taken.append((time.perf_counter() - began) * 1000)
    if not isinstance(found, Succeeded):
        raise RuntimeError(f"the run ended as {found}")


def figures_of(rows: list[Row]) -> dict[str, Any]:
    """Give each row's times, and what its sandbox adds to the same node among others."""
    inline = {row.node: statistics.median(row.taken) for row in rows if row.sandbox == "none"}
    return {
        f"{row.node}, {row.sandbox}": {
            "p50_ms": round(statistics.median(row.taken), 1),
            "p99_ms": round(sorted(row.taken)[min(len(row.taken) - 1, round(len(row.taken) * 0.99))], 1),
            "adds_p50_ms": round(statistics.median(row.taken) - inline[row.node], 1),
        }
        for row in rows
    }


def show(rows: list[Row], figures: dict[str, Any]) -> None:
    table = Table(title="A run of one node")
    for column in ("node", "sandbox of its own", "p50 ms", "p99 ms", "adds, p50 ms"):
        table.add_column(column, justify="right" if "ms" in column else "left")
    for row in rows:
        found = figures[f"{row.node}, {row.sandbox}"]
        table.add_row(row.node, row.sandbox, str(found["p50_ms"]), str(found["p99_ms"]), str(found["adds_p50_ms"]))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
