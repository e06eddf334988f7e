"""Measures what it costs to hand a run to an executor elsewhere: the same run, here and there, in alternating rounds.

Another executor joins by one more row in `measure`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.flow import FlowDocument
from schemas.outcome import Succeeded
from schemas.settings import ExecutionMode, load_settings
from schemas.validation import read_document
from scripts import bench_docker, bench_kubernetes, bench_lambda
from workers.engine.sink import MemorySink
from workers.executors.base import Executor, RunOrder
from workers.executors.http.executor import HttpExecutor
from workers.executors.http.signing import SharedSigning
from workers.executors.modes import ModeExecutor
from workers.executors.openings import Openings

ROOT = Path(__file__).resolve().parent.parent
#: Seconds between two runs when latency is measured: orders come now and then, not in a row.
PAUSE = 0.01
#: Runs at once when throughput is measured.
AT_ONCE = 16
LEASE_LEFT = timedelta(seconds=9)

FLOWS: dict[str, dict[str, Any]] = {
    "log": {"id": "it", "node_type": "debug.log", "config": {"message": "m"}},
    "code": {"id": "it", "node_type": "code.javascript", "config": {"code": "export default () => 1"}},
}
_numbers = itertools.count(1)


@dataclass
class Row:
    executor: str
    flow: str
    run: Executor
    taken: list[float] = field(default_factory=list)
    per_second: float = 0.0


class Limits:
    async def read(self, app: str) -> AppLimits:
        return AppLimits()


async def measure(url: str, key: str, home: Path, mode: ExecutionMode, rounds: int) -> list[Row]:
    settings = load_settings({"FLO_HOME": str(home), "FLO_EXECUTION_MODE": str(mode), "EXECUTOR_URL": url})
    openings = Openings(settings)
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    here = ModeExecutor(openings.all(), settings=settings, limits=Limits(), catalog=catalog)
    http = HttpExecutor(
        settings, worker="wrk_bench", limits=Limits(), signing=SharedSigning(key), lease_left=lambda: LEASE_LEFT
    )
    try:
        await here.start()
        rows = [Row(name, flow, run) for flow in FLOWS for name, run in (("inline", here), ("http", http))]
        for row in rows:
            await asyncio.gather(*(once(row) for _ in range(AT_ONCE)))  # warm
        for _ in range(rounds):
            for row in rows:
                row.taken.append(await once(row))
                await asyncio.sleep(PAUSE)
        for row in rows:
            row.per_second = await at_once(row, rounds)
        return rows
    finally:
        await http.aclose()
        await here.aclose()
        await openings.aclose()


async def once(row: Row) -> float:
    order = RunOrder(
        run_id=f"run_{next(_numbers)}", app="bench", flow=row.flow, version=1, attempt=1, document=document(row.flow),
        payload={}, backend_config={},
    )  # fmt: skip
    began = time.perf_counter()
    found = await row.run.run(order, MemorySink())
    if not isinstance(found, Succeeded):
        raise RuntimeError(f"the run ended as {found}")
    return (time.perf_counter() - began) * 1000


async def at_once(row: Row, runs: int) -> float:
    left = iter(range(runs))

    async def caller() -> None:
        for _ in left:
            await once(row)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return runs / (time.perf_counter() - began)


def document(flow: str) -> FlowDocument:
    raw = {"name": flow, "nodes": [FLOWS[flow]], "connections": []}
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    return read_document(raw, catalog=catalog, max_inline_http=timedelta(minutes=5))[0]


@contextmanager
def executor(home: Path, key: str, mode: ExecutionMode) -> Iterator[str]:
    """Run `flo executor`; give its URL."""
    known = {"FLO_HOME": str(home), "FLO_EXECUTOR_KEY": key, "FLO_EXECUTION_MODE": str(mode)}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FLO_LOG_LEVEL": "warning", **known}
    command = [sys.executable, "-P", "-m", "workers.runner.server", "--port", "0", "--concurrency", "64"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rsplit(" ", 1)[1].strip()
        finally:
            process.terminate()
            process.wait()


def summary(row: Row) -> dict[str, float]:
    ordered = sorted(row.taken)
    return {
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))], 2),
        "per_s": round(row.per_second, 1),
    }


def show(figures: dict[str, dict[str, float]]) -> None:
    table = Table(title="The same run, here and over HTTP")
    for column in ("run", "p50 ms", "p99 ms", f"runs/s, {AT_ONCE} at once"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for name, found in figures.items():
        table.add_row(name.replace("_", " "), f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}", str(found["per_s"]))
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="What handing a run over costs.")
    parser.add_argument("--runs", type=int, default=300, help="per row (default: %(default)s)")
    parser.add_argument("--mode", type=ExecutionMode, default=ExecutionMode.SANDBOX_CODE_ONLY, help="on both sides")
    parser.add_argument("--parked", type=int, default=1000, help="Jobs parked in the cluster (default: %(default)s)")
    given = parser.parse_args()
    key = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory() as folder, executor(Path(folder) / "there", key, given.mode) as url:
        rows = asyncio.run(measure(url, key, Path(folder) / "here", given.mode, given.runs))
    figures: dict[str, Any] = {f"{row.flow}_{row.executor}": summary(row) for row in rows}
    show(figures)
    for flow in FLOWS:
        over = figures[f"{flow}_http"]["p50_ms"] - figures[f"{flow}_inline"]["p50_ms"]
        figures[f"{flow}_http_over_inline_p50_ms"] = round(over, 2)
        print(f"{flow}: http takes {over:.2f} ms more than inline (p50)")
    functions = bench_lambda.measured(given.runs, colds=3)
    bench_lambda.show({name: found for name, found in functions.items() if isinstance(found, dict)})
    figures |= {f"lambda_{name}": found for name, found in functions.items()}
    containers = bench_docker.measured(min(given.runs, 30))
    bench_docker.show({name: found for name, found in containers.items() if isinstance(found, dict)})
    figures |= {f"docker_{name}": found for name, found in containers.items()}
    jobs = bench_kubernetes.measured(min(given.runs, 30), given.parked)
    bench_kubernetes.show(jobs)
    figures |= {f"kubernetes_{name}": found for name, found in jobs.items()}
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({"name": "executors", "machine": machine, "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
