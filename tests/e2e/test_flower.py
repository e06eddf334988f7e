"""What Flower shows of a running Flo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.flo_program import FloDev, flo_dev, until

HELLO = {
    "name": "hello",
    "nodes": [{"id": "say", "node_type": "debug.log", "config": {"message": "hello"}}],
}


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[FloDev]:
    with flo_dev(tmp_path / "home", "--flower-port", "0") as running:
        yield running


def test_flower_lists_every_job_of_every_lane_and_the_worker_online(dev: FloDev) -> None:
    flower = httpx.Client(base_url=dev.endpoint["flower"] or "", timeout=10)
    worker = until(lambda: online(flower))

    with dev.client("shop") as client:
        client.push("hello", HELLO)
        client.put_event("go", kind="invoke", flow="hello")
        client.put_event("tick", kind="schedule", flow="hello", config={"every": "1s"})
        client.put_event("hook", kind="webhook", flow="hello", config={"path": "orders"})
        invoked = [client.invoke_async("go")["run_id"] for _ in range(20)]
        httpx.post(f"{client.url}/hooks/shop/orders", json={"order": 1}).raise_for_status()
        until(lambda: next(iter(client.runs(lane="recurring", status="succeeded", limit=1)), None))
        client.delete_event("tick")
        runs = until(lambda: settled(list(client.runs(limit=1000))))

    tasks = until(lambda: all_shown(flower, runs))
    names = {task["name"] for task in tasks.values()}
    assert worker.startswith("worker-1@")
    assert {run["run_id"] for run in runs} >= set(invoked)
    assert names == {"flo.flow", "flo.webhook", "flo.recurring"}
    assert {task["state"] for task in tasks.values()} == {"SUCCESS"}


def online(flower: httpx.Client) -> str | None:
    rows = flower.get("/workers", params={"json": "1"}).json()["data"]
    return next((row["hostname"] for row in rows if row["status"]), None)


def settled(runs: list[Any]) -> list[Any] | None:
    return runs if all(run["status"] == "succeeded" for run in runs) else None


def all_shown(flower: httpx.Client, runs: list[Any]) -> dict[str, Any] | None:
    """Flower's own list, once it has each of these runs as a finished job."""
    tasks = flower.get("/api/tasks", params={"limit": 1000}).json()
    wanted = {f"{run['run_id']}.{run['attempt']}" for run in runs}
    done = {uuid for uuid, task in tasks.items() if task["state"] == "SUCCESS"}
    return {uuid: tasks[uuid] for uuid in wanted} if wanted <= done else None
