"""A flow whose nodes run alone, and whose worker is killed while one of them has its sandbox."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.flo_program import flo_dev, until
from tests.e2e.outside import Outside


class Ledger(Outside):
    """Holds back the first request of the middle node, until who has asked is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.hung_up = threading.Event(), threading.Event()

    def answer(self, name: str, nth: int, connection: socket.socket) -> int | None:
        if name != "middle" or nth > 1:
            return 200
        self.arrived.set()
        if not connection.recv(1):  # gone, without another word
            self.hung_up.set()
        return None


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger().listening() as ledger:
        yield ledger


def chain(outside: Outside) -> dict[str, object]:
    names = ["first", "middle", "last"]
    return {
        "name": "chain",
        "nodes": [
            {"id": name, "node_type": "http.request", "config": {"url": outside.url(name)}, "execution_mode": "sandbox"}
            for name in names
        ],
        "connections": [
            {"from_node": start, "from_port": "status", "to_node": end, "to_port": "json"}
            for start, end in (("first", "middle"), ("middle", "last"))
        ],
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["SANDBOX_CODE_ONLY", "SANDBOX_PROCESS", "SANDBOX_CODE_AND_PROCESS"])
def test_its_sandbox_dies_with_the_worker_and_the_run_goes_on_from_there(
    tmp_path: Path, ledger: Ledger, mode: str
) -> None:
    settings = {"FLO_LEASE_SECONDS": "3", "FLO_ALLOW_PRIVATE_NETWORK": "true", "FLO_EXECUTION_MODE": mode}
    with flo_dev(tmp_path / "home", "--no-flower", **settings) as dev, dev.client("shop") as client:
        client.push("chain", chain(ledger))
        client.put_event("go", kind="invoke", flow="chain")
        run_id = client.invoke_async("go", {})["run_id"]

        assert ledger.arrived.wait(90)
        os.kill(dev.child("-m workers"), signal.SIGKILL)
        assert ledger.hung_up.wait(30)  # long before anybody could have come to its request's end

        run = until(lambda: ended if (ended := client.run(run_id))["status"] not in ("queued", "running") else None)
        completed = [event["node_id"] for event in client.events(run_id) if event["type"] == "node_completed"]

    assert (run["status"], run["attempt"], run["error"]) == ("succeeded", 2, None)
    assert completed == ["first", "middle", "last"]
    assert ledger.counted == {"first": 1, "middle": 2, "last": 1}
