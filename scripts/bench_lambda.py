"""Measures what Flo adds to a Lambda function: a bare invocation of nothing, and a run of nothing, by turns.

Both go through boto3 to AWS's emulator and AWS's runtime for Python, one process each. What Lambda itself takes is in
neither. `scripts/bench executors` shows the same figures beside those of the other executors.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.flow import FlowDocument
from schemas.outcome import Outcome, Succeeded
from schemas.run import RunStatus
from schemas.settings import ExecutionMode, ExecutorName, load_settings
from schemas.validation import read_document
from tests.lambda_double.instances import EmulatedInstance, Terms
from workers.engine.sink import EventSink, MemorySink
from workers.executors.awslambda.doors import BothDoors
from workers.executors.awslambda.executor import LambdaExecutor
from workers.executors.base import RunOrder
from workers.executors.loan import Loan

ROOT = Path(__file__).resolve().parent.parent
#: Seconds between two invocations: they come now and then, not in a row.
PAUSE = 0.01
FLOWS: dict[str, dict[str, Any]] = {
    "log": {"id": "it", "node_type": "debug.log", "config": {"message": "m"}},
    "code": {"id": "it", "node_type": "code.javascript", "config": {"code": "export default () => 1"}},
}
AWS = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
_numbers = itertools.count(1)

#: Does something once; the bench measures how long it takes.
Once = Callable[[], Awaitable[object]]


class NoBook:
    """Lends nothing: what the loan costs in SQL is the dispatcher's account."""

    async def lend(self, order: RunOrder, events: EventSink, loan: Loan) -> None:
        pass

    async def token(self, order: RunOrder, *, begins_within: timedelta) -> str:
        raise NotImplementedError

    async def settle(self, run_id: str, attempt: int, outcome: Outcome) -> RunStatus | None:
        raise NotImplementedError


class Limits:
    async def read(self, app: str) -> AppLimits:
        return AppLimits()


def measured(rounds: int, colds: int) -> dict[str, Any]:
    """Bring the emulator, measure, and tell what Flo adds."""
    subprocess.run([ROOT / "scripts" / "lambda-rie"], check=True, stdout=subprocess.DEVNULL)
    figures = asyncio.run(measure(rounds, colds))
    return {**figures, **over(figures)}


async def measure(rounds: int, colds: int) -> dict[str, dict[str, float]]:
    """Give milliseconds by what was invoked."""
    os.environ.update(AWS)
    with tempfile.TemporaryDirectory() as home:
        terms = Terms(home=Path(home), timeout=60, variables={"FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY"})
        figures = {}
        for name, handler in (("bare", "tests.lambda_double.no_op.handler"), ("log", "workers.lambda_handler.handler")):
            figures[f"{name}_cold"] = summary([await cold(terms, handler, name) for _ in range(colds)])
        async with opened(terms, "tests.lambda_double.no_op.handler") as bare, opened(terms, None) as warm:
            rows: dict[str, Once] = {"bare": bare["bare"], "log": warm["log"], "code": warm["code"]}
            taken = await by_turns(rows, rounds)
        return {f"{name}_warm": summary(times) for name, times in taken.items()} | figures


async def by_turns(rows: dict[str, Once], rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 20):
        for name, once in rows.items():
            spent = await timed(once)
            if number >= 20:  # warm by then
                taken[name].append(spent)
            await asyncio.sleep(PAUSE)
    return taken


async def cold(terms: Terms, handler: str, name: str) -> float:
    """Invoke a function that has not been started."""
    async with opened(terms, handler) as rows:
        return await timed(rows[name])


async def timed(once: Once) -> float:
    began = time.perf_counter()
    await once()
    return (time.perf_counter() - began) * 1000


@asynccontextmanager
async def opened(terms: Terms, handler: str | None) -> AsyncIterator[dict[str, Once]]:
    """Start one instance; give the ways to invoke it."""
    instance = await EmulatedInstance.start(terms, handler=handler or "workers.lambda_handler.handler")
    settings = load_settings(
        {"AWS_ENDPOINT_URL": instance.url, "AWS_REGION": AWS["AWS_REGION"], "LAMBDA_EXECUTOR_FUNCTION": "function"}
    )
    doors = BothDoors(settings)
    doors.door("function", streams=False)  # boto3 reads its own data: a worker's first run waits for it, no other
    executor = LambdaExecutor(settings, name=ExecutorName.LAMBDA_INVOKE, limits=Limits(), book=NoBook(), doors=doors)
    config = Config(read_timeout=60, retries={"total_max_attempts": 1})
    client = boto3.client("lambda", endpoint_url=instance.url, region_name=AWS["AWS_REGION"], config=config)

    async def bare() -> None:
        client.invoke(FunctionName="function", Payload=b"{}")["Payload"].read()

    try:
        yield {"bare": bare, **{flow: partial(run, executor, flow) for flow in FLOWS}}
    finally:
        await executor.aclose()
        client.close()
        await instance.close()


@cache
def document(flow: str) -> FlowDocument:
    raw = {"name": flow, "nodes": [FLOWS[flow]], "connections": []}
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_ONLY)
    return read_document(raw, catalog=catalog, max_inline_http=timedelta(minutes=5))[0]


async def run(executor: LambdaExecutor, flow: str) -> None:
    order = RunOrder(
        run_id=f"run_{next(_numbers)}", app="bench", flow=flow, version=1, attempt=1, document=document(flow),
        payload={}, backend_config={},
    )  # fmt: skip
    outcome = await executor.run(order, MemorySink())
    if not isinstance(outcome, Succeeded):
        raise RuntimeError(f"the run ended as {outcome}")


def summary(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    last = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return {"p50_ms": round(statistics.median(ordered), 2), "p99_ms": round(last, 2)}


def show(figures: dict[str, dict[str, float]]) -> None:
    table = Table(title="A function invoked bare, and with a run")
    for column in ("invoked", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "invoked" else "right")
    for name, found in figures.items():
        table.add_row(name.replace("_", " "), f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}")
    Console().print(table)


def over(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Tell what Flo adds: the run's time less the bare invocation's."""
    return {
        f"{flow}_over_bare_{which}": round(figures[f"{flow}_warm"][which] - figures["bare_warm"][which], 2)
        for flow in FLOWS
        for which in ("p50_ms", "p99_ms")
    } | {"log_over_bare_cold_ms": round(figures["log_cold"]["p50_ms"] - figures["bare_cold"]["p50_ms"], 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description="What Flo adds to a Lambda function.")
    parser.add_argument("--runs", type=int, default=300, help="warm invocations per row (default: %(default)s)")
    parser.add_argument("--colds", type=int, default=5, help="cold invocations per row (default: %(default)s)")
    given = parser.parse_args()
    figures = measured(given.runs, given.colds)
    show({name: found for name, found in figures.items() if isinstance(found, dict)})
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({"name": "lambda", "machine": machine, "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
