"""Measures what Flo adds to a container: a bare one of the runner image, and a run in one, cold and from the pool.

All have the same image and the same walls. A bare container runs `true`; it is created, started, waited for and removed
through the same SDK. `scripts/bench executors` shows the same figures beside those of the other executors.
"""

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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
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
from tests.servers import DockerServer, share_docker
from workers.engine.sink import MemorySink
from workers.executors.base import Executor, RunOrder
from workers.executors.openings import Openings
from workers.sandboxes.docker.daemon import Daemon
from workers.sandboxes.docker.spec import Spec

FLOWS: dict[str, dict[str, Any]] = {
    "log": {"id": "it", "node_type": "debug.log", "config": {"message": "m"}},
    "code": {"id": "it", "node_type": "code.javascript", "config": {"code": "export default () => 1"}},
}
#: Seconds that the pool has to be full again: what is measured is a run that finds a container ready.
PAUSE = 2.5
_numbers = itertools.count(1)

#: Does something once; the bench measures how long it takes.
Once = Callable[[], Awaitable[object]]


class Limits:
    async def read(self, app: str) -> AppLimits:
        return AppLimits()


def measured(rounds: int) -> dict[str, Any]:
    """Find or start a daemon, measure, and tell what Flo adds."""
    with tempfile.TemporaryDirectory() as folder, share_docker(Path(folder)) as server:
        figures = asyncio.run(measure(server, Path(folder), rounds))
    bare = figures["bare"]["p50_ms"]
    over = {f"{name}_over_bare_p50_ms": round(each["p50_ms"] - bare, 2) for name, each in figures.items()}
    return {**figures, **{name: more for name, more in over.items() if not name.startswith("bare")}}


async def measure(server: DockerServer, home: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Give milliseconds by what was run."""
    taken: dict[str, list[float]] = {}
    daemon = Daemon(load_settings({"DOCKER_HOST": server.host}))
    for ready, name in ((0, "cold"), (2, "pool")):
        for flow in FLOWS:
            async with opened(server, home, ready) as executor:
                rows = {f"{flow}_{name}": partial(run, executor, flow)} | (
                    {"bare": partial(bare, daemon, server.image)} if (ready, flow) == (0, "log") else {}
                )
                await run(executor, flow)  # what opens with the first run is not the next ones' cost
                for _ in range(rounds):
                    for row, once in rows.items():
                        await asyncio.sleep(PAUSE if ready else 0)
                        taken.setdefault(row, []).append(await timed(once))
    daemon.close()
    return {name: summary(times) for name, times in taken.items()}


@asynccontextmanager
async def opened(server: DockerServer, home: Path, ready: int) -> AsyncIterator[Executor]:
    variables = {"FLO_HOME": str(home), "FLO_DOCKER_READY": str(ready), **server.environment}
    openings = Openings(load_settings(variables))
    executor = openings.docker(Limits(), load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS))
    try:
        yield executor
    finally:
        await executor.aclose()
        await openings.aclose()


async def bare(daemon: Daemon, image: str) -> None:
    config = Spec(image=image, entrypoint=("/bin/true",), memory_mb=2560).config()

    def once(client: Any) -> None:
        made = client.create_container_from_config(config)["Id"]
        client.start(made)
        client.wait(made)
        client.remove_container(made)

    await daemon.ask(once)


async def run(executor: Executor, flow: str) -> None:
    order = RunOrder(
        run_id=f"run_{next(_numbers)}", app="bench", flow=flow, version=1, attempt=1, document=document(flow),
        payload={}, backend_config={},
    )  # fmt: skip
    outcome = await executor.run(order, MemorySink())
    if not isinstance(outcome, Succeeded):
        raise RuntimeError(f"the run ended as {outcome}")


def document(flow: str) -> FlowDocument:
    raw = {"name": flow, "nodes": [FLOWS[flow]], "connections": []}
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    return read_document(raw, catalog=catalog, max_inline_http=timedelta(minutes=5))[0]


async def timed(once: Once) -> float:
    began = time.perf_counter()
    await once()
    return (time.perf_counter() - began) * 1000


def summary(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    last = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return {"p50_ms": round(statistics.median(ordered), 2), "p99_ms": round(last, 2)}


def show(figures: dict[str, dict[str, float]]) -> None:
    table = Table(title="A bare container, and a run in one")
    for column in ("run", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for name, found in figures.items():
        table.add_row(name.replace("_", " "), f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}")
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="What Flo adds to a container.")
    parser.add_argument("--runs", type=int, default=30, help="per row (default: %(default)s)")
    given = parser.parse_args()
    figures = measured(given.runs)
    show({name: found for name, found in figures.items() if isinstance(found, dict)})
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({"name": "docker", "machine": machine, "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
