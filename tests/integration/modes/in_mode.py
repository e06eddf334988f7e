"""Runs flows in a real mode, and proves that nothing of it is left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.errors import Unavailable
from schemas.outcome import Failed, Outcome, RunError, Succeeded
from schemas.settings import ExecutionMode, load_settings
from schemas.validation import read_document
from tests.integration.box.boxes import mounts
from tests.processes import children_of
from tests.servers import missing
from workers.engine.sink import MemorySink
from workers.executors.base import RunOrder
from workers.executors.modes import ModeExecutor
from workers.executors.openings import Openings

SANDBOXED = (
    ExecutionMode.SANDBOX_CODE_ONLY, ExecutionMode.SANDBOX_PROCESS, ExecutionMode.SANDBOX_CODE_AND_PROCESS
)  # fmt: skip
_numbers = count(1)


class Limits(dict[str, AppLimits]):
    """What the test allows each app."""

    async def read(self, app: str) -> AppLimits:
        return self.get(app, AppLimits())


@dataclass
class InMode:
    """A worker's executor in one mode."""

    executor: ModeExecutor
    limits: Limits

    def order(self, node_type: str, config: dict[str, Any], **given: Any) -> RunOrder:
        """Order one node; `settings` are the flow's, `payload` what the node gets, the rest is of the run."""
        raw = {
            "name": f"flow-{next(_numbers)}",
            "nodes": [{"id": "it", "node_type": node_type, "config": config}],
            "settings": given.pop("settings", {}),
        }
        return self.order_flow(raw, **given)

    def order_flow(self, raw: dict[str, Any], **given: Any) -> RunOrder:
        catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
        document, _ = read_document({"connections": []} | raw, catalog=catalog, max_inline_http=timedelta(minutes=5))
        known = {
            "run_id": f"run_{next(_numbers)}", "app": "acme", "flow": document.name, "version": 1, "attempt": 1,
            "document": document, "payload": {}, "backend_config": {},
        }  # fmt: skip
        return RunOrder(**known | given)

    async def run(self, order: RunOrder, events: MemorySink | None = None) -> Outcome:
        return await self.executor.run(order, events or MemorySink())

    async def result(self, node_type: str, config: dict[str, Any], **given: Any) -> Any:
        """Give what one node's flow results in; anything but success fails the test."""
        outcome = await self.run(self.order(node_type, config, **given))
        assert isinstance(outcome, Succeeded), outcome
        return outcome.result

    async def error(self, node_type: str, config: dict[str, Any], **given: Any) -> RunError:
        outcome = await self.run(self.order(node_type, config, **given))
        assert isinstance(outcome, Failed), outcome
        return outcome.error

    async def javascript(self, body: str, **config: Any) -> Any:
        return await self.result("code.javascript", {"code": body, **config})


@asynccontextmanager
async def opened(mode: ExecutionMode, home: Path, **variables: str) -> AsyncIterator[InMode]:
    """Open a worker's executor, and prove that closing it leaves no process, mount or cgroup."""
    before = _children()
    mounted = mounts()
    settings = load_settings({"FLO_HOME": str(home), "FLO_EXECUTION_MODE": mode, "FLO_V8_HOSTS": "1", **variables})
    openings, limits = Openings(settings), Limits()
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    executor = ModeExecutor(openings.all(), settings=settings, limits=limits, catalog=catalog)
    try:
        await executor.start()
        yield InMode(executor, limits)
    except Unavailable as reason:
        missing(f"execution mode {mode} ({reason})", "see docs/security.md, `what each way needs`")
        raise
    finally:
        await executor.aclose()
        await openings.aclose()
    assert _children() == before
    assert mounts() == mounted
    assert cgroups() == []


def cgroups() -> list[str]:
    """The cgroups in this process's name."""
    return [str(path) for path in Path("/sys/fs/cgroup").rglob(f"flo.*.{os.getpid()}.*")]


def _children() -> list[int]:
    return sorted(children_of("self"))
