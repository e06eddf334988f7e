"""Every worker is killed while their runs are executed: all settle, none overlaps, and nothing of a worker is left."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.flo_program import FloDev, all_over, environment, flo_dev, until, until_all_gone
from tests.e2e.witness import flow, open_witness

RUNS = 50


@contextmanager
def executor(home: Path, key: str) -> Iterator[str]:
    """Run `flo executor`; give its address."""
    more = {"FLO_EXECUTOR_KEY": key, "FLO_ALLOW_PRIVATE_NETWORK": "1", "FLO_LOG_LEVEL": "warning"}
    command = [sys.executable, "-P", "-m", "flo", "executor", "--port", "0", "--concurrency", str(RUNS)]
    with subprocess.Popen(command, env=environment(home, **more), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rsplit(" ", 1)[1].strip()
        finally:
            process.terminate()


@contextmanager
def running(home: Path, where: str) -> Iterator[FloDev]:
    key = secrets.token_urlsafe(32)
    variables = {
        "FLO_EXECUTOR": where, "FLO_LEASE_SECONDS": "3", "FLO_MAX_CONCURRENCY": str(RUNS),
        "FLO_ALLOW_PRIVATE_NETWORK": "1",
    }  # fmt: skip
    if where != "http":
        with flo_dev(home, **variables) as dev:
            yield dev
        return
    with (
        executor(home.parent / "executor", key) as url,
        flo_dev(home, EXECUTOR_URL=url, FLO_EXECUTOR_KEY=key, **variables) as dev,
    ):
        yield dev


@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", ["inline", "namespace", "http"])
def test_runs_outlive_the_death_of_every_worker(tmp_path: Path, where: str) -> None:
    with open_witness() as witness, running(tmp_path / "home", where) as dev, dev.client("shop") as client:
        # Boxes of their own, fifty at once, take their time.
        client.push("slow", {**flow(witness, delay_ms=3000), "settings": {"max_execution_time_ms": 80_000}})
        client.put_event("go", kind="invoke", flow="slow")
        accepted = [client.invoke_async("go", {"n": number})["run_id"] for number in range(RUNS)]
        until(lambda: len(witness.calls) >= min(RUNS, 10) or None)

        worker = dev.child("-m workers")
        os.kill(worker, signal.SIGKILL)
        found = until(lambda: all_over(client))

        assert Counter(run["status"] for run in found) == {"succeeded": RUNS}, [run["error"] for run in found]
        results = {run["run_id"]: run["result"]["output"] for run in found}
        assert [results[run_id] for run_id in accepted] == list(range(RUNS))
        assert set(witness.calls) == set(accepted)
        assert witness.overlapping() == []
        family = dev.family()
        dev.stop()
        until_all_gone(family | {worker})
