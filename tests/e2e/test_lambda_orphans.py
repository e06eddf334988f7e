"""Every worker is killed while their runs are in functions: all settle, and no two attempts at a run overlap."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.flo_program import all_over, until
from tests.e2e.lambda_stack import AT_ONCE, running
from tests.e2e.witness import flow, open_witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How runs are out when the workers die."""

    executor: str
    invocation: str
    calls_back: bool
    runs: int
    delay_ms: int


#: Few of them are still under way when other workers would have them, were they not lent, with functions to spare.
CASES = {
    "queued by Lambda": Case(executor="lambda_invoke", invocation="Event", calls_back=True, runs=50, delay_ms=500),
    "waited for": Case(executor="lambda_invoke", invocation="RequestResponse", calls_back=True, runs=50, delay_ms=500),
    "streamed": Case(executor="lambda_stream", invocation="RequestResponse", calls_back=True, runs=50, delay_ms=500),
    "streamed for long": Case(
        executor="lambda_stream", invocation="RequestResponse", calls_back=True, runs=2, delay_ms=9_000
    ),
    "without call-backs": Case(
        executor="lambda_invoke", invocation="RequestResponse", calls_back=False, runs=2, delay_ms=9_000
    ),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_runs_in_functions_outlive_the_death_of_every_worker(tmp_path: Path, case: Case) -> None:
    with (
        open_witness() as witness,
        running(tmp_path / "home", calls_back=case.calls_back, executor=case.executor) as dev,
        dev.client("shop") as client,
    ):
        client.push("slow", flow(witness, delay_ms=case.delay_ms))
        client.put_event("go", kind="invoke", flow="slow")
        config = {"invocation": case.invocation}
        accepted = [
            client.invoke_async("go", {"n": number}, backend_config=config)["run_id"] for number in range(case.runs)
        ]
        until(lambda: len(list(client.runs(status="queued", limit=1000))) == 0 or None)
        until(lambda: len(witness.calls) >= min(case.runs, AT_ONCE) or None)

        os.kill(dev.child("-m workers"), signal.SIGKILL)
        found = until(lambda: all_over(client))

        assert Counter(run["status"] for run in found) == {"succeeded": case.runs}
        results = {run["run_id"]: run["result"]["output"] for run in found}
        assert [results[run_id] for run_id in accepted] == list(range(case.runs))
        assert set(witness.calls) == set(accepted)
        assert witness.overlapping() == []
