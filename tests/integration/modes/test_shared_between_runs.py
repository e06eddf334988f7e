"""What runs of one app share in a mode, and never with another app's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_mode import InMode, opened

from schemas.outcome import Succeeded
from schemas.settings import ExecutionMode

CACHED: dict[str, Any] = {
    "name": "dice",
    "nodes": [
        {
            "id": "throw",
            "node_type": "code.javascript",
            "config": {"code": "export default () => Math.random()"},
            "cache": {"ttl_ms": 600_000},
        }
    ],
}


async def throw(worker: InMode, app: str) -> Any:
    outcome = await worker.run(worker.order_flow(CACHED, app=app))
    assert isinstance(outcome, Succeeded), outcome
    return outcome.result


@pytest.mark.parametrize("mode", [ExecutionMode.SANDBOX_CODE_ONLY, ExecutionMode.SANDBOX_CODE_AND_PROCESS])
async def test_a_cached_result_is_shared_by_the_runs_of_an_app_and_by_no_others(
    mode: ExecutionMode, tmp_path: Path
) -> None:
    async with opened(mode, tmp_path) as worker:
        first, again, other = await throw(worker, "acme"), await throw(worker, "acme"), await throw(worker, "else")

    assert first == again
    assert first != other
