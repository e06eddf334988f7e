"""Every worker is killed while their runs are in containers: all settle, none overlaps, and no container is left."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import docker
import pytest

from flo.client import FloClient
from tests.e2e.flo_program import FloDev, all_over, flo_dev, until
from tests.servers import DockerServer

RUNS = 50

SLOW = {
    "name": "slow",
    "nodes": [
        {"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 4000}},
        {"id": "count", "node_type": "transform.map", "config": {"map": {"n": "data"}}},
    ],
    "connections": [{"from_node": "wait", "from_port": "data", "to_node": "count", "to_port": "data"}],
}


@pytest.fixture
def daemon(docker_server: DockerServer) -> Iterator[Any]:
    with closing(docker.APIClient(docker_server.host)) as client:
        yield client


@pytest.fixture
def told(docker_server: DockerServer) -> Iterator[list[Any]]:
    with closing(docker.APIClient(docker_server.host)) as listening, recorded(listening) as events:
        yield events


@pytest.fixture
def dev(tmp_path: Path, docker_server: DockerServer) -> Iterator[FloDev]:
    variables = {"FLO_LEASE_SECONDS": "3", "FLO_EXECUTOR": "docker", "FLO_MAX_CONCURRENCY": str(RUNS)}
    with flo_dev(tmp_path / "home", "--no-flower", **variables, **docker_server.environment) as running:
        yield running


@pytest.fixture
def client(dev: FloDev) -> Iterator[FloClient]:
    with dev.client("shop") as opened:
        opened.push("slow", SLOW)
        opened.put_event("go", kind="invoke", flow="slow")
        yield opened


def containers(daemon: Any) -> list[Any]:
    return list(daemon.containers(all=True, filters={"label": "flo.worker"}))


@contextmanager
def recorded(daemon: Any) -> Iterator[list[Any]]:
    """Write down what happens to containers: the daemon itself remembers only the last few things."""
    told: list[Any] = []
    happenings = daemon.events(decode=True, filters={"type": "container", "event": ["rename", "die"]})
    listener = threading.Thread(target=lambda: told.extend(happenings))
    listener.start()
    try:
        yield told
    finally:
        happenings.close()
        listener.join()


def lives(told: list[Any]) -> dict[str, list[tuple[int, int]]]:
    """Tell by run from when to when containers were this run's."""
    began: dict[str, tuple[str, int]] = {}
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for event in told:
        if event["Action"] == "rename":
            run = event["Actor"]["Attributes"]["name"].removeprefix("flo-").rpartition("-")[0]
            began[event["id"]] = (run, event["timeNano"])
        elif event["id"] in began:
            run, start = began.pop(event["id"])
            found[run].append((start, event["timeNano"]))
    assert began == {}
    return found


def overlaps(lives: list[tuple[int, int]]) -> bool:
    ordered = sorted(lives)
    return any(later[0] < earlier[1] for earlier, later in pairwise(ordered))


@pytest.mark.timeout(300)
def test_runs_in_containers_outlive_the_death_of_every_worker(
    dev: FloDev, client: FloClient, daemon: Any, told: list[Any]
) -> None:
    accepted = [client.invoke_async("go", {"data": number})["run_id"] for number in range(RUNS)]
    until(lambda: len(list(client.runs(status="running", limit=1000))) == RUNS or None)
    until(lambda: len([each for each in containers(daemon) if each["Names"][0].startswith("/flo-run_")]) >= 3 or None)

    os.kill(dev.child("-m workers"), signal.SIGKILL)
    runs = until(lambda: all_over(client))

    assert Counter(run["status"] for run in runs) == {"succeeded": RUNS}
    results = {run["run_id"]: run["result"]["n"] for run in runs}
    assert [results[run_id] for run_id in accepted] == list(range(RUNS))
    dev.stop()
    assert containers(daemon) == []
    spans = lives(told)
    assert max(len(each) for each in spans.values()) >= 2, "no run was in a container when the workers died"
    assert [run for run, each in spans.items() if overlaps(each)] == []
