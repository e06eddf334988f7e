"""Measure the V8 sandbox beside a raw isolated-vm loop in Node on the same cores.

Prints a table, and as its last line one JSON object: {"name", "machine", "figures"}. Called by `scripts/bench v8`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.isolates import Isolates, rate
from workers.sandboxes.base import CodeOrder, CodeReturned
from workers.sandboxes.v8 import V8Pool

MEMORY_MB = 64
SOURCE = "export default ({name}) => ({text: `hello ${name}`})"

ORDER = CodeOrder(
    source=SOURCE, inputs={"name": "flo"}, app="bench", timeout=timedelta(seconds=10), memory_mb=MEMORY_MB
)


def quantiles(milliseconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {"p50_ms": round(ordered[len(ordered) // 2], 3), "p99_ms": round(ordered[int(len(ordered) * 0.99)], 3)}


def raw_row(times: Sequence[Sequence[float]]) -> dict[str, float]:
    return {"runs_per_s": round(rate(times), 1), **quantiles([time for each in times for time in each])}


async def run_once(pool: V8Pool) -> float:
    """Run the code once and answer how many milliseconds that took."""
    started = time.perf_counter()
    outcome = await pool.run(ORDER, lambda level, message: None)
    if not isinstance(outcome, CodeReturned):
        raise SystemExit(f"the code did not run: {outcome}")
    return (time.perf_counter() - started) * 1000


async def measure_saturated(pool: V8Pool, concurrency: int, seconds: float) -> dict[str, float]:
    """Keep `concurrency` runs in the pool at all times."""
    times: list[float] = []
    started, cpu_before = time.perf_counter(), time.process_time()

    async def keep_running() -> None:
        while time.perf_counter() - started < seconds:
            times.append(await run_once(pool))

    await asyncio.gather(*(keep_running() for _ in range(concurrency)))
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    worker = {"worker_cpu_ms_per_run": round(cpu / len(times) * 1000, 3)}
    return {"runs_per_s": round(len(times) / elapsed, 1), **quantiles(times), **worker}


async def measure_idle(pool: V8Pool, runs: int) -> dict[str, float]:
    """Run one at a time, each after a pause in which the pool makes its isolates ready again."""
    times = []
    for _ in range(runs):
        await asyncio.sleep(0.02)
        times.append(await run_once(pool))
    return quantiles(times)


def median(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


async def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure raw and pool in turns, as other work on the machine may come and go; tell the median of each."""
    raw, saturated = [], []
    async with (
        V8Pool(hosts=arguments.hosts, slots=arguments.slots, warm_memory_mb=MEMORY_MB) as pool,
        Isolates("raw", ORDER) as isolates,
    ):
        await isolates.for_seconds(0.5)
        await measure_saturated(pool, arguments.concurrency, 0.5)
        idle = await measure_idle(pool, 200)
        alone = raw_row(await isolates.for_seconds(arguments.seconds, processes=1))
        for _ in range(arguments.rounds):
            raw.append(raw_row(await isolates.for_seconds(arguments.seconds)))
            saturated.append(await measure_saturated(pool, arguments.concurrency, arguments.seconds))
            saturated[-1]["ratio_to_raw"] = saturated[-1]["runs_per_s"] / raw[-1]["runs_per_s"]
    return {
        "raw_one_process": alone,
        "raw_process_per_core": median(raw),
        "pool_saturated": median(saturated),
        "pool_idle": idle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="turns of raw and pool")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--hosts", type=int, default=0, help="0: one per core")
    parser.add_argument("--slots", type=int, default=32, help="runs at once in one host")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if not arguments.json:
        print(f"{'':28}{'runs/s':>10}{'p50 ms':>10}{'p99 ms':>10}")
        for name, row in figures.items():
            rate = f"{row['runs_per_s']:,.0f}" if "runs_per_s" in row else ""
            print(f"{name:28}{rate:>10}{row['p50_ms']:>10.2f}{row['p99_ms']:>10.2f}")
        print(f"\npool against raw on the same cores: {figures['pool_saturated']['ratio_to_raw']:.0%}\n")
    print(orjson.dumps({"name": "v8", "machine": machine, "figures": figures}).decode())


if __name__ == "__main__":
    main()
