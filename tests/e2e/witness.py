"""A witness in the outside world, and a flow that calls it: what it hears tells which attempts were executed when."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Witness:
    """What the outside world saw: by run, which attempt began and which ended, in order."""

    port: int = 0
    calls: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    def overlapping(self) -> list[str]:
        """Name the runs of which a second attempt was seen before the first was seen for the last time."""
        return [
            run for run, calls in self.calls.items() if [one for one, _ in calls] != sorted(one for one, _ in calls)
        ]


@contextmanager
def open_witness() -> Iterator[Witness]:
    """Listen on a free port of this machine."""
    seen = Witness()

    class Hears(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.calls[self.headers["flo-run"]].append((int(self.headers["flo-attempt"]), self.path))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Listens(ThreadingHTTPServer):
        request_queue_size = 256  # all runs call at once

    server = Listens(("127.0.0.1", 0), Hears)
    seen.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()


def flow(witness: Witness, *, delay_ms: int) -> dict[str, Any]:
    """Be seen, wait, be seen again, and answer what was given."""

    def seen(name: str) -> dict[str, Any]:
        config = {"url": f"http://127.0.0.1:{witness.port}/{name}", "method": "POST"}
        return {"id": name, "node_type": "http.request", "config": config}

    def code(name: str, code: str) -> dict[str, Any]:
        return {"id": name, "node_type": "code.javascript", "config": {"code": code}}

    wires = [
        ("number", "output", "wait", "data"), ("began", "status", "answer", "began"), ("wait", "data", "ended", "json"),
        ("wait", "data", "answer", "n"), ("ended", "status", "answer", "ended"),
    ]  # fmt: skip
    return {
        "name": "slow",
        "nodes": [
            seen("began"),
            code("number", "export default ({payload}) => payload.n"),
            {"id": "wait", "node_type": "time.delay", "config": {"delay_ms": delay_ms}},
            seen("ended"),
            code("answer", "export default ({n}) => n"),
        ],
        "connections": [
            {"from_node": one, "from_port": port, "to_node": other, "to_port": into} for one, port, other, into in wires
        ],
        "settings": {"max_execution_time_ms": 10_000},
    }
