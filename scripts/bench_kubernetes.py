"""Measures what a run as a Kubernetes Job costs beyond a bare Job, and what a thousand of them cost a worker.

The cluster is the tests' double on this machine: its own time is taken off, and says nothing of a real one's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "contract"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from away_place import Followed, serving_api
from executor_places import Limits
from kubernetes_place import with_resources

from schemas.outcome import Away, Succeeded
from tests.e2e.flo_program import flo_dev, until
from tests.k8s_double.kubelet import PAUSE
from tests.k8s_double.orders import RESOURCES, a_job, an_order
from tests.k8s_double.running import NAMESPACE, Double, running_double
from tests.servers import free_port
from workers.engine.sink import EventSink, MemorySink
from workers.executors.base import RunOrder
from workers.executors.kubernetes.cluster import Cluster
from workers.executors.kubernetes.executor import KubernetesExecutor
from workers.executors.kubernetes.mirror import Mirror
from workers.executors.kubernetes.opening import open_kubernetes

#: Seconds for which a worker with parked Jobs is watched.
WATCHED = 20.0
FLOW = {"name": "log", "nodes": [{"id": "it", "node_type": "debug.log", "config": {"message": "m"}}]}


@dataclass
class Taken:
    """Milliseconds, by what took them."""

    #: A Job of `true`, from create to done.
    bare: list[float] = field(default_factory=list)
    #: A Job that runs the same flow with the same engine, from a file.
    engine: list[float] = field(default_factory=list)
    #: The same flow through Flo, from the claim to its end in SQL.
    flo: list[float] = field(default_factory=list)
    #: The part of it until the Job has begun: loan, token, Job, Secret, start.
    lending: list[float] = field(default_factory=list)


class Jobs:
    """Bare Jobs, waited for by a watch."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._changed = asyncio.Event()
        self.mirror = Mirror(cluster, lambda _: self._changed.set())

    async def run(self, number: int, command: list[str]) -> float:
        job = a_job(an_order(run_id=f"bare_{number}"), command=command)
        name = job["metadata"]["name"]
        began = time.perf_counter()
        await self._cluster.create_job(job)
        while not (name in self.mirror.jobs and self.mirror.jobs[name].over):
            self._changed.clear()
            await self._changed.wait()
        if not self.mirror.jobs[name].succeeded:
            raise RuntimeError(f"the bare Job failed: {self.mirror.pods.get(name)}")
        return (time.perf_counter() - began) * 1000


class Timed(KubernetesExecutor):
    """Tells how long it took to let go of a run."""

    taken: list[float]

    async def run(self, order: RunOrder, events: EventSink) -> Any:
        began = time.perf_counter()
        outcome = await super().run(order, events)
        if isinstance(outcome, Away):
            self.taken.append((time.perf_counter() - began) * 1000)
        return outcome


@asynccontextmanager
async def opened(double: Double, home: Path, taken: Taken) -> AsyncIterator[tuple[Jobs, Followed]]:
    limits = Limits()
    async with serving_api(home, limits, **double.variables) as api:
        made = open_kubernetes(api.settings, api.store, limits=limits, book=api.book, owner="wrk_bench")
        made.__class__ = Timed
        made.taken = taken.lending  # type: ignore[attr-defined]
        made.start()
        cluster = Cluster(str(double.kubeconfig), NAMESPACE)
        jobs = Jobs(cluster)
        following = asyncio.create_task(jobs.mirror.follow())
        try:
            yield jobs, Followed(made, api, prepared=with_resources)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await cluster.aclose()
            await made.aclose()


async def overhead(double: Double, home: Path, file: Path, rounds: int) -> Taken:
    """Run bare Jobs and runs in alternating rounds."""
    taken = Taken()
    engine = ["python", "-P", "-m", "workers.runner", "run", str(file), "--json"]
    async with opened(double, home, taken) as (jobs, flo):
        for number in range(rounds + 1):  # the first warms everything
            taken.bare.append(await jobs.run(number * 2, ["true"]))
            taken.engine.append(await jobs.run(number * 2 + 1, engine))
            began = time.perf_counter()
            outcome = await flo.run(an_order(run_id=f"run_{number}", payload={}), MemorySink())
            taken.flo.append((time.perf_counter() - began) * 1000)
            if not isinstance(outcome, Succeeded):
                raise RuntimeError(f"the run ended as {outcome}")
    for row in (taken.bare, taken.engine, taken.flo, taken.lending):
        del row[0]
    return taken


def parked(double: Double, home: Path, number: int) -> dict[str, float]:
    """Have a worker of `flo dev` make so many Jobs whose pods do nothing, and watch what they cost it."""
    port = str(free_port())
    variables = {
        **double.variables, "K8S_EXECUTOR_IMAGE": PAUSE, "K8S_START_SECONDS": "86400", "FLO_LOG_LEVEL": "warning",
        "FLO_EXECUTOR": "kubernetes_job", "FLO_URL": f"http://127.0.0.1:{port}",
    }  # fmt: skip
    with flo_dev(home, "--no-flower", "--port", port, **variables) as dev, dev.client("bench") as client:
        client.push("log", {**FLOW, "settings": {"resources": RESOURCES}})
        client.put_event("go", kind="invoke", flow="log")
        worker = psutil.Process(dev.child("-m workers"))
        time.sleep(5)
        before = worker.memory_info().rss
        idle = worker.cpu_percent(WATCHED / 2)
        began = time.perf_counter()
        for _ in range(number):
            client.invoke_async("go", {})
        until(lambda: double.state()["asked"].get("patch jobs", 0) >= number or None)
        lent_s = time.perf_counter() - began
        time.sleep(5)
        cpu = worker.cpu_percent(WATCHED)
        after = worker.memory_info().rss
    return {
        "jobs": number,
        "worker_rss_before_mib": round(before / 2**20, 1),
        "worker_rss_mib": round(after / 2**20, 1),
        "jobs_rss_mib": round((after - before) / 2**20, 1),
        "worker_cpu_idle_percent": round(idle, 1),
        "worker_cpu_percent": round(cpu, 1),
        "lent_per_s": round(number / lent_s, 1),
    }


def quantiles(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return {"p50_ms": round(statistics.median(ordered), 1), "p99_ms": round(p99, 1)}


def measured(runs: int, parked_jobs: int) -> dict[str, Any]:
    """Give the figures, in milliseconds where they don't say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file = home / "flow.json"
        file.write_text(json.dumps(FLOW))
        with running_double(home / "one") as double:
            taken = asyncio.run(overhead(double, home / "flo", file, runs))
        with running_double(home / "two") as double:
            figures: dict[str, Any] = {"parked": parked(double, home / "dev", parked_jobs)} if parked_jobs else {}
    figures |= {
        "bare_job_of_true": quantiles(taken.bare),
        "bare_job_of_the_engine": quantiles(taken.engine),
        "run": quantiles(taken.flo),
        "run_until_its_job_begins": quantiles(taken.lending),
        "over_engine_p50_ms": round(statistics.median(taken.flo) - statistics.median(taken.engine), 1),
    }
    return figures


def show(figures: dict[str, Any]) -> None:
    table = Table(title="A Kubernetes Job on the double")
    for column in ("what", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, found in figures.items():
        if isinstance(found, dict) and "p50_ms" in found:
            table.add_row(name.replace("_", " "), str(found["p50_ms"]), str(found["p99_ms"]))
    Console().print(table)
    print(f"a run takes {figures['over_engine_p50_ms']} ms more than the same engine in a bare Job (p50)")
    if "parked" in figures:
        print("parked:", figures["parked"])


def main() -> int:
    parser = argparse.ArgumentParser(description="What a run as a Kubernetes Job costs.")
    parser.add_argument("--runs", type=int, default=30, help="per row (default: %(default)s)")
    parser.add_argument(
        "--parked", type=int, default=1000, help="Jobs that a worker looks after (default: %(default)s)"
    )
    given = parser.parse_args()
    figures = measured(given.runs, given.parked)
    show(figures)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({"name": "kubernetes", "machine": machine, "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
