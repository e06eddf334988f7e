"""A flow of 30 nodes with effects outside, whose worker is killed again and again between two of them."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.flo_program import flo_dev, until

NODES = 30
#: The worker is killed when these nodes have begun: all before them are over.
KILLED_IN = ("n4", "n13", "n22")


class Ledger:
    """A server that counts each node's request, and holds back the first one of those in KILLED_IN."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.arrived = {name: threading.Event() for name in KILLED_IN}
        self.released = {name: threading.Event() for name in KILLED_IN}
        ledger = self

        class Counting(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                name = self.path.strip("/")
                ledger.counted[name] += 1
                if name in KILLED_IN:
                    ledger.arrived[name].set()
                    ledger.released[name].wait(60)
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *arguments: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    thread = threading.Thread(target=ledger.server.serve_forever)
    thread.start()
    yield ledger
    ledger.server.shutdown()
    ledger.server.server_close()
    thread.join()


def chain(url: str) -> dict[str, object]:
    names = [f"n{number}" for number in range(NODES)]
    return {
        "name": "chain",
        "nodes": [
            {"id": name, "node_type": "http.request", "config": {"method": "POST", "url": f"{url}/{name}"}}
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
        client.push("chain", chain(ledger.url))
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
