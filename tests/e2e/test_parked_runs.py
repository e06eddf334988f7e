"""Runs that wait while everything that ever held them is killed."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from flo.client import FloClient
from tests.e2e.flo_program import flo_dev, until

_ASKS: dict[str, Any] = {
    "name": "asks",
    "nodes": [
        {"id": "ask", "node_type": "wait.approval", "config": {"message": "Ship it?"}},
        {"id": "end", "node_type": "respond"},
    ],
    "connections": [{"from_node": "ask", "from_port": "by", "to_node": "end", "to_port": "value"}],
}
_CALLS: dict[str, Any] = {
    "name": "calls",
    "nodes": [
        {"id": "call", "node_type": "flow.call", "config": {"flow": "asks", "mode": "run"}},
        {"id": "end", "node_type": "respond"},
    ],
    "connections": [{"from_node": "call", "from_port": "output", "to_node": "end", "to_port": "value"}],
}
_MODE = {"FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY", "FLO_LEASE_SECONDS": "3"}


def push(client: FloClient) -> None:
    for name, document in (("asks", _ASKS), ("calls", _CALLS)):
        client.push(name, document)
        client.put_event(name, kind="invoke", flow=name)


def waiting(client: FloClient, run_id: str) -> Any:
    """Give the run once it waits."""
    return until(lambda: run if (run := client.run(run_id))["status"] == "waiting" else None)


def asked(client: FloClient) -> Any:
    """Give the run of the flow that asks, once it waits: nobody else knows its id."""
    return until(lambda: next((run for run in client.runs(status="waiting") if run["flow"] == "asks"), None))


@pytest.mark.timeout(300)
def test_a_run_that_waits_outlives_its_worker_and_the_whole_server(tmp_path: Path) -> None:
    with flo_dev(tmp_path / "home", **_MODE) as dev, dev.client("shop") as client:
        push(client)
        run_id = client.invoke_async("asks", {})["run_id"]
        path = httpx.URL(waiting(client, run_id)["waits"][0]["url"]).path
        for pid in dev.family():
            with contextlib.suppress(ProcessLookupError):  # it has died with its parent
                os.kill(pid, signal.SIGKILL)

    with flo_dev(tmp_path / "home", **_MODE) as dev, dev.client("shop") as client:
        os.kill(dev.child("-m workers"), signal.SIGKILL)
        answer = httpx.post(f"{client.url}{path}", json={"approved": True, "by": "bo"})
        run = until(lambda: ended if (ended := client.run(run_id))["status"] == "succeeded" else None)
        again = httpx.post(f"{client.url}{path}", json={"approved": False})

    assert answer.status_code == 200
    assert (run["result"], run["attempt"]) == ("bo", 2)
    assert again.status_code == 409


@pytest.mark.timeout(300)
def test_a_run_that_called_another_hears_how_it_ended_although_the_worker_was_killed(tmp_path: Path) -> None:
    with flo_dev(tmp_path / "home", **_MODE) as dev, dev.client("shop") as client:
        push(client)
        run_id = client.invoke_async("calls", {})["run_id"]
        waiting(client, run_id)
        child = asked(client)
        os.kill(dev.child("-m workers"), signal.SIGKILL)
        path = httpx.URL(child["waits"][0]["url"]).path
        httpx.post(f"{client.url}{path}", json={"approved": True, "by": "eve"}).raise_for_status()

        run = until(lambda: ended if (ended := client.run(run_id))["status"] == "succeeded" else None)

    assert run["result"] == "eve"
