"""Processes are killed and the broker forgets, while runs are under way: every accepted run still ends, once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flo.client import FloClient
from tests.e2e.flo_program import FloDev, flo_dev, until

RUNS = 200

#: Runs that last long enough to be caught in the act.
SLOW = {
    "name": "slow",
    "nodes": [
        {"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 700}},
        {"id": "count", "node_type": "code.javascript", "config": {"code": "export default ({n}) => n + 1"}},
        {"id": "say", "node_type": "debug.log", "config": {}},
    ],
    "connections": [
        {"from_node": "wait", "from_port": "data", "to_node": "count", "to_port": "n"},
        {"from_node": "count", "from_port": "output", "to_node": "say", "to_port": "message"},
    ],
}


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[FloDev]:
    with flo_dev(tmp_path / "home", "--no-flower", FLO_LEASE_SECONDS="3") as running:
        yield running


@pytest.fixture
def client(dev: FloDev) -> Iterator[FloClient]:
    with dev.client("shop") as opened:
        opened.push("slow", SLOW)
        opened.put_event("go", kind="invoke", flow="slow")
        yield opened


def accept_all(client: FloClient) -> list[str]:
    return [client.invoke_async("go", {"data": number})["run_id"] for number in range(RUNS)]


def all_over(client: FloClient) -> list[Any] | None:
    runs = list(client.runs(limit=1000))
    live = [run for run in runs if run["status"] in {"queued", "running", "waiting"}]
    return None if live else runs


def assert_each_once(client: FloClient, accepted: list[str], runs: list[Any]) -> None:
    """Every accepted run succeeded, with its own result, and its history ends once and has no gaps."""
    assert Counter(run["status"] for run in runs) == {"succeeded": RUNS}
    assert {run["run_id"] for run in runs} == set(accepted)
    histories = [list(client.events(run_id)) for run_id in accepted]
    assert {len([event for event in events if event["type"] == "run_completed"]) for events in histories} == {1}
    assert all([event["seq"] for event in events] == list(range(1, len(events) + 1)) for events in histories)
    results = {run["run_id"]: run["result"] for run in runs}
    assert [results[run_id] for run_id in accepted] == [{"message": number + 1} for number in range(RUNS)]


def test_a_worker_killed_in_mid_run_loses_nothing(dev: FloDev, client: FloClient) -> None:
    accepted = accept_all(client)
    until(lambda: next(iter(client.runs(status="running", limit=1)), None))

    os.kill(dev.child("-m workers"), signal.SIGKILL)

    runs = until(lambda: all_over(client))
    assert_each_once(client, accepted, runs)
    assert max(run["attempt"] for run in runs) == 2


def test_a_redis_that_forgets_everything_loses_nothing(dev: FloDev, client: FloClient) -> None:
    os.kill(dev.child("-m workers"), signal.SIGSTOP)
    accepted = accept_all(client)

    with redis.Redis.from_url(redis_url_of(dev)) as broker:
        broker.flushall()
    os.kill(dev.child("-m workers"), signal.SIGCONT)

    runs = until(lambda: all_over(client))
    assert_each_once(client, accepted, runs)


def test_an_api_killed_after_it_accepted_loses_nothing(dev: FloDev, client: FloClient) -> None:
    accepted = accept_all(client)

    os.kill(dev.child("-m scheduler api"), signal.SIGKILL)

    until(lambda: True if is_ready(client) else None)
    runs = until(lambda: all_over(client))
    assert_each_once(client, accepted, runs)


def redis_url_of(dev: FloDev) -> str:
    """The embedded server's URL, with its password, from the environment that flo dev gives its children."""
    environ = Path(f"/proc/{dev.child('-m scheduler tick')}/environ").read_bytes().decode().split("\0")
    return dict(line.partition("=")[::2] for line in environ)["REDIS_URL"]


def is_ready(client: FloClient) -> bool:
    import httpx

    try:
        return httpx.get(f"{client.url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
