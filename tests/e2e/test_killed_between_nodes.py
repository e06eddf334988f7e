"""A flow of 30 nodes with effects outside, whose worker is killed again and again between two of them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.flo_program import flo_dev, until
from tests.e2e.outside import Outside

NODES = 30
#: The worker is killed when these nodes have begun: all before them are over.
KILLED_IN = ("n4", "n13", "n22")


class Ledger(Outside):
    """Holds back the first request of those in KILLED_IN."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = {name: threading.Event() for name in KILLED_IN}
        self.released = {name: threading.Event() for name in KILLED_IN}

    def answer(self, name: str, nth: int, connection: socket.socket) -> int:
        if name in KILLED_IN:
            self.arrived[name].set()
            self.released[name].wait(60)
        return 200


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger().listening() as ledger:
        yield ledger


def chain(outside: Outside) -> dict[str, object]:
    names = [f"n{number}" for number in range(NODES)]
    return {
        "name": "chain",
        "nodes": [
            {"id": name, "node_type": "http.request", "config": {"method": "POST", "url": outside.url(name)}}
            for name in names
        ],
        "connections": [
            {"from_node": start, "from_port": "status", "to_node": end, "to_port": "json"}
            for start, end in pairwise(names)
        ],
    }


@pytest.mark.timeout(300)
def test_no_finished_node_repeats_and_every_effect_happens(tmp_path: Path, ledger: Ledger) -> None:
    settings = {
        "FLO_LEASE_SECONDS": "3",
        "FLO_MAX_ATTEMPTS": "10",
        "FLO_ALLOW_PRIVATE_NETWORK": "true",
        "FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY",
    }
    with flo_dev(tmp_path / "home", "--no-flower", **settings) as dev, dev.client("shop") as client:
        client.push("chain", chain(ledger))
        client.put_event("go", kind="invoke", flow="chain")
        run_id = client.invoke_async("go", {})["run_id"]

        for name in KILLED_IN:
            assert ledger.arrived[name].wait(90)
            os.kill(dev.child("-m workers"), signal.SIGKILL)
            ledger.released[name].set()

        run = until(lambda: ended if (ended := client.run(run_id))["status"] not in ("queued", "running") else None)
        completed = [event["node_id"] for event in client.events(run_id) if event["type"] == "node_completed"]

    assert (run["status"], run["attempt"], run["error"]) == ("succeeded", 1 + len(KILLED_IN), None)
    assert completed == [f"n{number}" for number in range(NODES)]
    under_way = dict.fromkeys(KILLED_IN, 2)  # their requests had been sent when the worker died: at least once
    assert ledger.counted == {f"n{number}": 1 for number in range(NODES)} | under_way
