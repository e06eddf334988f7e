"""A flow whose nodes run alone, and whose worker is killed while one of them has its sandbox."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.flo_program import flo_dev, until


class Ledger:
    """A server that counts each node's request, and holds back the first one of the middle node."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.arrived, self.hung_up = threading.Event(), threading.Event()
        ledger = self

        class Counting(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/")
                ledger.counted[name] += 1
                if name == "middle" and ledger.counted[name] == 1:
                    ledger.arrived.set()
                    if not self.connection.recv(1):  # who asked is gone, without another word
                        ledger.hung_up.set()
                    return
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
    names = ["first", "middle", "last"]
    return {
        "name": "chain",
        "nodes": [
            {"id": name, "node_type": "http.request", "config": {"url": f"{url}/{name}"}, "execution_mode": "sandbox"}
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
        client.push("chain", chain(ledger.url))
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
