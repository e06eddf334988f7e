"""Measures the flow engine: Flow Core's table, overhead and memory per node, a shell pipeline, big graphs, light and
heavy code in one flow beside plain Node.

Rounds alternate, as other work on the machine comes and goes; the best counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from flo.client import FloClient
from flo.errors import FloError as ClientError
from flo.home import Home
from schemas.catalog import Catalog, load_catalog
from schemas.errors import FloError
from schemas.flow import FlowDocument
from schemas.json import JSONValue
from schemas.nodes.spec import NodeType
from schemas.outcome import Succeeded
from schemas.run import Happening
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.registry import BUILT_IN, Registered
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeCall, NodeTools
from workers.sandboxes.v8.pool import V8Pool
from workers.sandboxes.v8.setup import find_node

#: Flow Core's own documentation, milliseconds: sequential and parallel.
FLOW_CORE = {10: (104, 30), 50: (527, 120), 100: (1073, 200), 500: (5325, 800)}
SLEEP_MS, WIDTH = 10, 10
FIB = "const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2)); export default () => fib(%d)"
LIGHT, HEAVY = (10, 40), (27, 10)


class NoOp:
    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"output": 1}


NO_OP = NodeType(
    type="bench.noop", category="bench", description="Does nothing.", open_inputs=True, open_outputs=True, example={}
)
REGISTRY = {**BUILT_IN, NO_OP.type: Registered(NO_OP, NoOp())}
CATALOG = Catalog([*load_catalog().values(), NO_OP], mode=ExecutionMode.SANDBOX_CODE_AND_PROCESS)


class Nowhere:
    """Drops what happens."""

    def emit(self, happening: Happening) -> None:
        return

    async def flush(self) -> None:
        return


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5, help="rounds, alternating (default: %(default)s)")
    options.add_argument("--no-server", action="store_true", help="leave out what needs `flo dev`")
    given = options.parse_args()
    figures = asyncio.run(measure(given.rounds))
    figures["pipeline"] = pipeline(given.rounds, server=not given.no_server)
    show(figures)
    print(json.dumps({"name": "engine", "machine": machine(), "figures": figures}))
    return 0


async def measure(rounds: int) -> dict[str, Any]:
    return {
        "table": await table(rounds),
        "overhead": await overhead(rounds),
        "big": await big_graphs(),
        "code": await code(rounds),
    }


def document(
    nodes: list[dict[str, Any]], wires: list[tuple[int, int]], *, port: str = "output", **settings: Any
) -> FlowDocument:
    raw = {
        "name": "bench",
        "nodes": [{"id": f"n{index}", "config": {}, **node} for index, node in enumerate(nodes)],
        "connections": [
            {
                "from_node": f"n{start}",
                "from_port": port,
                "to_node": f"n{end}",
                "to_port": port if port == "data" else f"p{start}",
            }
            for start, end in wires
        ],
        "settings": settings,
    }
    return read_document(raw, catalog=CATALOG, max_inline_http=timedelta(seconds=300))[0]


async def timed(flow: FlowDocument, tools: NodeTools) -> float:
    """Run a flow, and give how many milliseconds that took."""
    began = time.perf_counter()
    outcome = await run_flow(flow, {}, tools=tools, events=Nowhere(), registry=REGISTRY)
    taken = (time.perf_counter() - began) * 1000
    if not isinstance(outcome, Succeeded):
        raise SystemExit(f"the flow did not succeed: {outcome}")
    return taken


def no_tools(code: Any = None) -> NodeTools:
    http = open_client(allow_private_network=False)
    return NodeTools(code=code, http=http, app="bench", run_id="run_bench", attempt=1)


# (a) Flow Core's table: nodes that sleep 10 ms


async def table(rounds: int) -> dict[str, Any]:
    sleep = {"node_type": "time.delay", "config": {"delay_ms": SLEEP_MS}}
    tools, rows = no_tools(), {}
    for count in FLOW_CORE:
        chain = document([sleep] * count, [(index, index + 1) for index in range(count - 1)], port="data")
        wide = document([sleep] * count, [], max_parallel_nodes=WIDTH)
        ideals = {"sequential": count * SLEEP_MS, "parallel": math.ceil(count / WIDTH) * SLEEP_MS}
        taken: dict[str, list[float]] = {"sequential": [], "parallel": [], "bare_sequential": [], "bare_parallel": []}
        for _ in range(rounds if count < 500 else min(rounds, 3)):
            taken["sequential"].append(await timed(chain, tools))
            taken["parallel"].append(await timed(wide, tools))
            taken["bare_sequential"].append(await bare_sleeps(count, 1))
            taken["bare_parallel"].append(await bare_sleeps(count, WIDTH))
        best = {name: round(min(each), 1) for name, each in taken.items()}
        over = {
            f"{name}_over_ideal_percent": round((best[name] / ideal - 1) * 100, 1) for name, ideal in ideals.items()
        }
        rows[str(count)] = {**best, **over, "ideal": ideals}
    return rows


async def bare_sleeps(count: int, width: int) -> float:
    """Do the same sleeps in a plain asyncio loop: what this machine's clock and scheduler cost anybody."""
    left = iter(range(count))

    async def sleeper() -> None:
        for _ in left:
            await asyncio.sleep(SLEEP_MS / 1000)

    began = time.perf_counter()
    await asyncio.gather(*(sleeper() for _ in range(width)))
    return (time.perf_counter() - began) * 1000


# (b) What the engine itself costs


async def overhead(rounds: int) -> dict[str, float]:
    count, tools = 1000, no_tools()
    node = {"node_type": NO_OP.type}
    flows = {
        "chain": document([node] * count, [(index, index + 1) for index in range(count - 1)]),
        "wide": document([node] * count, [], max_parallel_nodes=WIDTH),
    }
    figures: dict[str, float] = {}
    for name, flow in flows.items():
        figures[f"{name}_ms_per_node"] = round(min([await timed(flow, tools) for _ in range(rounds)]) / count, 4)
        tracemalloc.start()
        await timed(flow, tools)
        figures[f"{name}_bytes_per_node"] = round(tracemalloc.get_traced_memory()[1] / count)
        tracemalloc.stop()
    return figures


# (d) Ten thousand nodes


async def big_graphs() -> dict[str, float]:
    count, node, tools, random = 10_000, {"node_type": NO_OP.type}, no_tools(), Random(1)
    layered = [(random.randrange(max(0, end - 300), end), end) for end in range(100, count) for _ in range(3)]
    shapes = {
        "chain": [(index, index + 1) for index in range(count - 1)],
        "side_by_side": [],
        "fan_in": [(index, count - 1) for index in range(count - 1)],
        "random": sorted(set(layered)),
    }
    return {
        f"{name}_ms": round(await timed(document([node] * count, wires), tools), 1) for name, wires in shapes.items()
    }


# (e) Light and heavy code


async def code(rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        try:
            pool = await stack.enter_async_context(V8Pool(hosts=1))
        except FloError as missing:
            return {"not available": str(missing)}
        tools = no_tools(pool)
        for name, (size, count) in {"light": LIGHT, "heavy": HEAVY}.items():
            node = {"node_type": "code.javascript", "config": {"code": FIB % size}}
            flow = document([node] * count, [], strategy="sequential")
            await timed(flow, tools)
            taken = [(await timed(flow, tools), plain_node(size, count, apart=False)) for _ in range(rounds)]
            figures[f"{name}_flow_ms"] = round(min(flow for flow, _ in taken), 1)
            figures[f"{name}_plain_node_ms"] = round(min(plain for _, plain in taken), 1)
            figures[f"{name}_node_process_each_ms"] = round(plain_node(size, count, apart=True), 1)
            figures[f"{name}_tasks"] = f"{count} x fib({size})"
    return figures


def plain_node(size: int, count: int, *, apart: bool) -> float:
    """Compute the same in Node without a sandbox: all in one process, or each in a process of its own."""
    once = "const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2));"
    began = time.perf_counter()
    for _ in range(count if apart else 1):
        loop = f"for (let i = 0; i < {1 if apart else count}; i++) fib({size});"
        subprocess.run([str(find_node()), "-e", once + loop], check=True)
    return (time.perf_counter() - began) * 1000


# (c) A shell command, code and a log line


def pipeline(rounds: int, *, server: bool) -> dict[str, Any]:
    """Get data in a shell, count it in code, log that; by `flo run`, and through the whole server.

    Without a sandbox the shell fetches from a local server. A box can't reach this machine: there it
    prints the same.
    """
    if "shell.exec" not in BUILT_IN:
        return {"not available": "shell.exec is not registered"}
    data = json.dumps({"numbers": list(range(200))})
    with tempfile.TemporaryDirectory(prefix="flo-bench-") as folder, site(Path(folder), data) as url:
        commands = {"UNSANDBOXED": ["curl", "-sf", url], "SANDBOX_CODE_AND_PROCESS": ["printf", "%s", data]}
        return {mode: in_mode(mode, command, folder, rounds, server=server) for mode, command in commands.items()}


def in_mode(mode: str, command: list[str], folder: str, rounds: int, *, server: bool) -> dict[str, Any]:
    flow = {
        "name": "pipeline",
        "nodes": [
            {"id": "get", "node_type": "shell.exec", "config": {"command": command}},
            {
                "id": "count",
                "node_type": "code.javascript",
                "config": {"code": "export default ({d}) => `${d.length}`"},
            },
            {"id": "say", "node_type": "debug.log", "config": {}},
        ],
        "connections": [
            {"from_node": "get", "from_port": "stdout", "to_node": "count", "to_port": "d"},
            {"from_node": "count", "from_port": "output", "to_node": "say", "to_port": "message"},
        ],
    }
    (Path(folder) / "flow.json").write_text(json.dumps(flow))
    environment = {**os.environ, "FLO_HOME": f"{folder}/{mode}", "FLO_EXECUTION_MODE": mode}
    runs = [flo_run(f"{folder}/flow.json", environment) for _ in range(rounds)]
    if any(run["status"] != "succeeded" for run in runs):
        return {"not available": next(run["error"]["message"] for run in runs if run["error"])}
    figures: dict[str, Any] = {
        "flo_run_command_ms": round(min(run["command_ms"] for run in runs), 1),
        "flo_run_flow_ms": round(min(run["flow_ms"] for run in runs), 1),
    }
    if server:
        try:
            figures["server_invoke_p50_ms"] = through_the_server(flow, environment, runs=rounds * 4)
        except (ClientError, TimeoutError, RuntimeError) as trouble:
            figures["server"] = f"not available: {trouble}"
    return figures


def flo_run(file: str, environment: Mapping[str, str]) -> dict[str, Any]:
    began = time.perf_counter()
    command = [sys.executable, "-P", "-m", "flo", "run", file, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    taken = (time.perf_counter() - began) * 1000
    if not done.stdout:
        return {"status": "failed", "error": {"message": done.stderr.strip()}}
    run: dict[str, Any] = json.loads(done.stdout)
    started, finished = (time_of(run[key]) for key in ("started_at", "finished_at"))
    return {**run, "command_ms": taken, "flow_ms": (finished - started) * 1000}


def time_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def through_the_server(flow: Any, environment: dict[str, str], *, runs: int) -> float:
    """Invoke the flow and wait for its answer; give the median of the milliseconds."""
    home = Home(Path(environment["FLO_HOME"]))
    with ExitStack() as stack:
        url = stack.enter_context(dev(environment))
        client = stack.enter_context(FloClient(url, key=home.key(), app="bench"))
        client.push("pipeline", flow)
        client.put_event("go", kind="invoke", flow="pipeline")
        taken = []
        for _ in range(runs):
            began = time.perf_counter()
            run = client.invoke("go", {})
            taken.append((time.perf_counter() - began) * 1000)
            if run["status"] != "succeeded":
                raise RuntimeError(run["error"])
    return round(statistics.median(taken), 1)


@contextmanager
def dev(environment: dict[str, str]) -> Iterator[str]:
    home = Path(environment["FLO_HOME"])
    command = [sys.executable, "-P", "-m", "flo", "dev", "--no-flower", "--port", "0", "--home", str(home)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield waited_for(partial(endpoint_of, home, process.pid))
    finally:
        process.terminate()
        process.wait(60)


def endpoint_of(home: Path, pid: int) -> str | None:
    found = Home(home).endpoint()
    if not found or found["pid"] != pid:
        return None
    try:
        return found["api"] if httpx.get(f"{found['api']}/readyz").status_code == 200 else None
    except httpx.TransportError:
        return None


def waited_for(find: Callable[[], str | None], seconds: float = 60) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (found := find()) is not None:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"flo dev was not ready after {seconds:g} s")


@contextmanager
def site(folder: Path, data: str) -> Iterator[str]:
    (folder / "data.json").write_text(data)

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/data.json"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def show(figures: Mapping[str, Any]) -> None:
    console = Console()
    rows = Table(
        "10 ms nodes", "sequential", "over ideal", "width 10", "over ideal", "bare asyncio", "Flow Core's docs"
    )
    for count, row in figures["table"].items():
        theirs = FLOW_CORE[int(count)]
        rows.add_row(
            count,
            f"{row['sequential']:.0f} ms", f"{row['sequential_over_ideal_percent']:.1f} %",
            f"{row['parallel']:.0f} ms", f"{row['parallel_over_ideal_percent']:.1f} %",
            f"{row['bare_sequential']:.0f} / {row['bare_parallel']:.0f} ms", f"{theirs[0]} / {theirs[1]} ms",
        )  # fmt: skip
    console.print(rows)
    for part in ("overhead", "big", "code", "pipeline"):
        console.print(part, figures[part])


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
