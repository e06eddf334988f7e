"""Every worker is killed while their runs are Kubernetes Jobs: all settle, none runs twice at once, no Job is left."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flo.client import FloClient
from tests.e2e.flo_program import FloDev, flo_dev, until
from tests.e2e.witness import Witness, flow, open_witness
from tests.k8s_double.running import Double, running_double
from tests.servers import free_port

RUNS = 50
#: Eight at a time find room on the node.
RESOURCES = {"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "500m", "memory": "100Mi"}}


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Double]:
    with running_double(tmp_path / "cluster", "--cpu", "4") as running:
        yield running


@pytest.fixture
def dev(tmp_path: Path, double: Double) -> Iterator[FloDev]:
    port = str(free_port())
    variables = {
        **double.variables, "FLO_LEASE_SECONDS": "3", "FLO_EXECUTOR": "kubernetes_job", "FLO_MAX_CONCURRENCY": "64",
        "FLO_URL": f"http://127.0.0.1:{port}", "FLO_ALLOW_PRIVATE_NETWORK": "true", "K8S_KEEP_SECONDS": "1",
    }  # fmt: skip
    with flo_dev(tmp_path / "home", "--no-flower", "--port", port, **variables) as running:
        yield running


@pytest.fixture
def witness() -> Iterator[Witness]:
    with open_witness() as listening:
        yield listening


@pytest.fixture
def client(dev: FloDev, witness: Witness) -> Iterator[FloClient]:
    with dev.client("shop") as opened:
        opened.push("slow", {**flow(witness, delay_ms=1_000), "settings": {"resources": RESOURCES}})
        opened.put_event("go", kind="invoke", flow="slow")
        yield opened


def all_over(client: FloClient) -> list[Any] | None:
    runs = list(client.runs(limit=1000))
    return None if {run["status"] for run in runs} & {"queued", "running", "waiting"} else runs


def overlaps(lives: list[tuple[float, float]]) -> bool:
    return any(later[0] < earlier[1] for earlier, later in pairwise(sorted(lives)))


@pytest.mark.timeout(600)
def test_jobs_outlive_the_death_of_every_worker(
    dev: FloDev, client: FloClient, double: Double, witness: Witness
) -> None:
    accepted = [client.invoke_async("go", {"n": number})["run_id"] for number in range(RUNS)]
    until(lambda: len(double.stored("Job")) >= 10 or None)
    os.kill(dev.child("-m workers"), signal.SIGKILL)  # some are lent, some claimed, some neither
    until(lambda: double.state()["asked"].get("post jobs", 0) >= RUNS - 5 or None)
    os.kill(dev.child("-m workers"), signal.SIGKILL)

    # A Job that its worker could not let begin any more is given up after half a minute.
    until(lambda: len(list(client.runs(status="succeeded", limit=1000))) >= RUNS // 5 or None)
    runs = until(lambda: all_over(client))

    assert Counter(run["status"] for run in runs) == {"succeeded": RUNS}
    results = {run["run_id"]: run["result"] for run in runs}
    assert [results[run_id] for run_id in accepted] == [{"output": number} for number in range(RUNS)]
    assert witness.overlapping() == []
    assert [run for run, lives in double.state()["lives"].items() if overlaps(lives)] == []
    until(lambda: True if not double.state()["stored"] else None)
    assert double.state()["pids"] == []
