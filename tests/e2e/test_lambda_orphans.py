"""Every worker is killed while their runs are in functions: all settle, and no two attempts at a run overlap."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flo.client import FloClient
from tests.e2e.flo_program import until
from tests.e2e.lambda_stack import AT_ONCE, flow, open_witness, running

RUNS = 50


def all_over(client: FloClient) -> list[Any] | None:
    runs = list(client.runs(limit=1000))
    return None if {run["status"] for run in runs} & {"queued", "running", "waiting"} else runs


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("executor", "calls_back", "invocation", "runs"),
    [
        ("lambda_invoke", True, "Event", RUNS),
        ("lambda_invoke", True, "RequestResponse", RUNS),
        ("lambda_stream", True, "RequestResponse", AT_ONCE),
        ("lambda_invoke", False, "RequestResponse", AT_ONCE),
    ],
    ids=["queued by Lambda", "waited for", "streamed", "without call-backs"],
)
def test_runs_in_functions_outlive_the_death_of_every_worker(
    tmp_path: Path, executor: str, calls_back: bool, invocation: str, runs: int
) -> None:
    with (
        open_witness() as witness,
        running(tmp_path / "home", calls_back=calls_back, executor=executor) as dev,
        dev.client("shop") as client,
    ):
        client.push("slow", flow(witness, delay_ms=500))
        client.put_event("go", kind="invoke", flow="slow")
        config = {"invocation": invocation}
        accepted = [client.invoke_async("go", {"n": number}, backend_config=config)["run_id"] for number in range(runs)]
        until(lambda: len(list(client.runs(status="queued", limit=1000))) == 0 or None)
        until(lambda: len(witness.calls) >= AT_ONCE or None)

        os.kill(dev.child("-m workers"), signal.SIGKILL)
        found = until(lambda: all_over(client))

        assert Counter(run["status"] for run in found) == {"succeeded": runs}
        results = {run["run_id"]: run["result"]["output"] for run in found}
        assert [results[run_id] for run_id in accepted] == list(range(runs))
        assert set(witness.calls) == set(accepted)
        assert witness.overlapping() == []
