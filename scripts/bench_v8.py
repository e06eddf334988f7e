"""Measure the V8 sandbox beside a raw isolated-vm loop in Node on the same cores.

Prints a table, and as its last line one JSON object: {"name", "machine", "figures"}. Called by `scripts/bench v8`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from workers.sandboxes.base import CodeOrder, CodeReturned
from workers.sandboxes.node.setup import find_node
from workers.sandboxes.v8 import V8Pool
from workers.sandboxes.v8.setup import HOST_FOLDER

MEMORY_MB = 64
SOURCE = "export default ({name}) => ({text: `hello ${name}`})"

#: A fresh isolate and context for every run of the same code, in one thread, with nothing around it.
RAW = """
const ivm = require(process.argv[1] + "/node_modules/isolated-vm");
const [source, memoryLimit, seconds] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const inputs = new ivm.ExternalCopy({ name: "flo" });
function once() {
  const isolate = new ivm.Isolate({ memoryLimit });
  const context = isolate.createContextSync();
  const module = isolate.compileModuleSync(source, { filename: "code.js" });
  module.instantiateSync(context, () => {});
  module.evaluateSync();
  const run = module.namespace.getSync("default", { reference: true });
  run.applySync(undefined, [inputs.copyInto()], { result: { copy: true } });
  isolate.dispose();
}
for (let i = 0; i < 50; i++) once();
const times = [];
for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
  const start = performance.now();
  once();
  times.push(performance.now() - start);
}
console.log(JSON.stringify(times));
"""


def quantiles(milliseconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {"p50_ms": round(ordered[len(ordered) // 2], 3), "p99_ms": round(ordered[int(len(ordered) * 0.99)], 3)}


def measure_raw(processes: int, seconds: float) -> dict[str, float]:
    """Run the raw loop in as many processes at once."""
    command = [
        str(find_node()),
        "--no-node-snapshot",
        "-e",
        RAW,
        str(HOST_FOLDER),
        SOURCE,
        str(MEMORY_MB),
        str(seconds),
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    times = [orjson.loads(process.communicate()[0]) for process in running]
    rate = sum(len(each) / sum(each) * 1000 for each in times)
    return {"runs_per_s": round(rate, 1), **quantiles([time for each in times for time in each])}


async def run_once(pool: V8Pool) -> float:
    """Run the code once and answer how many milliseconds that took."""
    started = time.perf_counter()
    outcome = await pool.run(
        CodeOrder(
            source=SOURCE,
            inputs={"name": "flo"},
            app="bench",
            timeout=timedelta(seconds=10),
            memory_mb=MEMORY_MB,
        ),
        lambda level, message: None,
    )
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
    cores = len(os.sched_getaffinity(0))
    raw, saturated = [], []
    async with V8Pool(hosts=arguments.hosts, slots=arguments.slots, warm_memory_mb=MEMORY_MB) as pool:
        await measure_saturated(pool, arguments.concurrency, 0.5)
        idle = await measure_idle(pool, 200)
        alone = measure_raw(1, arguments.seconds)
        for _ in range(arguments.rounds):
            raw.append(measure_raw(cores, arguments.seconds))
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
