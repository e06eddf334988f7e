"""Every executor there is, opened for the contract suite. Another joins by one more case in `opened_executor`.

An executor elsewhere is a real program, started once for all tests of a pytest worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.errors import Unavailable
from schemas.outcome import Failed, Outcome, RunError, Succeeded
from schemas.run import EventType
from schemas.settings import ExecutionMode, Settings, load_settings
from schemas.validation import read_document
from tests.servers import missing
from workers.engine.sink import MemorySink
from workers.executors.base import Executor, RunOrder
from workers.executors.http.executor import HttpExecutor
from workers.executors.http.signing import SharedSigning
from workers.executors.modes import ModeExecutor, NamespaceExecutor
from workers.executors.openings import Openings

#: In the order in which they were made; `-k` chooses one.
EXECUTORS = ("inline", "namespace", "http", "docker", "lambda_invoke", "lambda_stream", "kubernetes_job")
#: Those that hand their runs to another program over the network.
REMOTE = ("http",)
#: How long a worker of the tests is sure of its runs: longer than any test.
LEASE_LEFT = timedelta(seconds=60)

_REPOSITORY = Path(__file__).parent.parent.parent
_runs = count(1)


class Limits(dict[str, AppLimits]):
    """What the test allows each app."""

    async def read(self, app: str) -> AppLimits:
        return self.get(app, AppLimits())


@dataclass
class Place:
    """An executor and the words to order with."""

    executor: Executor
    limits: Limits = field(default_factory=Limits)

    def order(self, *nodes: dict[str, Any], **given: Any) -> RunOrder:
        """Order a flow of these nodes; `connections` and `settings` are the flow's, the rest is of the run."""
        number = next(_runs)
        raw = {
            "name": f"flow-{number}",
            "nodes": list(nodes),
            "connections": given.pop("connections", []),
            "settings": given.pop("settings", {}),
        }
        catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
        document, _ = read_document(raw, catalog=catalog, max_inline_http=timedelta(minutes=5))
        known = {
            "run_id": f"run_{os.getpid()}_{number}", "app": "acme", "flow": document.name, "version": 1, "attempt": 1,
            "document": document, "payload": {}, "backend_config": {},
        }  # fmt: skip
        return RunOrder(**known | given)

    async def run(self, order: RunOrder, events: MemorySink | None = None) -> Outcome:
        return await self.executor.run(order, events or MemorySink())

    async def result(self, order: RunOrder, events: MemorySink | None = None) -> Any:
        outcome = await self.run(order, events)
        assert isinstance(outcome, Succeeded), outcome
        return outcome.result

    async def error(self, order: RunOrder, events: MemorySink | None = None) -> RunError:
        outcome = await self.run(order, events)
        assert isinstance(outcome, Failed), outcome
        return outcome.error


def javascript(code: str, node_id: str = "it", **config: Any) -> dict[str, Any]:
    return {"id": node_id, "node_type": "code.javascript", "config": {"code": code, **config}}


def told(events: MemorySink) -> list[tuple[EventType, str | None]]:
    """What was told, without the log of whoever is chatty."""
    return [(said.type, said.node_id) for said in events.happenings]


@asynccontextmanager
async def opened_executor(name: str, home: Path, programs: dict[str, str]) -> AsyncIterator[Place]:
    """Open an executor by its name; `programs` are the addresses of those that run already."""
    if name in REMOTE:
        async with opened_http([programs[name]]) as place:
            yield place
        return
    if name == "docker":
        async with opened_docker(home, programs) as place:
            yield place
        return
    async with _opened_here(name, home) as place:
        yield place


@asynccontextmanager
async def opened_http(urls: list[str], **given: Any) -> AsyncIterator[Place]:
    """Open the worker's side of executors that listen at these URLs."""
    limits = Limits()
    executor = HttpExecutor(
        load_settings({"EXECUTOR_URL": ",".join(urls)}),
        **{"worker": "wrk_test", "limits": limits, "signing": SharedSigning(KEY), "lease_left": lambda: LEASE_LEFT}
        | given,
    )
    try:
        yield Place(executor, limits)
    finally:
        await executor.aclose()


@asynccontextmanager
async def opened_docker(home: Path, variables: Mapping[str, str]) -> AsyncIterator[Place]:
    """Open the executor whose runs have containers; `variables` name the daemon and the image."""
    limits = Limits()
    openings = Openings(load_settings({"FLO_HOME": str(home), **variables}))
    executor = openings.docker(limits, load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS))
    try:
        yield Place(executor, limits)
    finally:
        await executor.aclose()
        await openings.aclose()


@asynccontextmanager
async def _opened_here(name: str, home: Path) -> AsyncIterator[Place]:
    settings, limits = _settings(home), Limits()
    openings = Openings(settings)
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    modes = ModeExecutor(openings.all(), settings=settings, limits=limits, catalog=catalog)
    try:
        await modes.start()
        yield Place(NamespaceExecutor(modes) if name == "namespace" else modes, limits)
    except Unavailable as reason:
        missing(f"the executor {name} ({reason})", "see docs/security.md, `what each way needs`")
        raise
    finally:
        await modes.aclose()
        await openings.aclose()


#: Shared by the tests' workers and executors.
KEY = "the key of the tests, which nobody else has"


@dataclass(frozen=True, slots=True)
class Program:
    """A running `flo executor`."""

    process: subprocess.Popen[str]
    url: str


@contextmanager
def running_executor(home: Path, *options: str, **variables: str) -> Iterator[Program]:
    """Start `flo executor` on a free port, and see to it that it ends, and nothing of it is left."""
    known = {"FLO_HOME": str(home), "FLO_EXECUTOR_KEY": KEY, "FLO_V8_HOSTS": "1", "FLO_LOG_LEVEL": "warning"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "workers.runner.server", "--port", "0", *options],
        cwd=_REPOSITORY,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        | {"PYTHONPATH": str(_REPOSITORY)}
        | known
        | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "listening on" in line, line
        yield Program(process, line.rsplit(" ", 1)[1].strip())
    finally:
        process.terminate()
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


def _settings(home: Path) -> Settings:
    return load_settings({"FLO_HOME": str(home), "FLO_V8_HOSTS": "1"})
