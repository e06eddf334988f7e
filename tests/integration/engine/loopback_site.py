"""A small HTTP server on loopback: the path says how it answers."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Site(BaseHTTPRequestHandler):
    """Answers by path; counts its requests, and keeps what the last ones said."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]]
    visits: Counter[str]

    def _take(self) -> None:
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen.append({"method": self.command, "path": self.path, "headers": headers, "body": body})
        self.visits[self.path] += 1
        page, _, rest = self.path.lstrip("/").partition("/")
        getattr(self, f"page_{page}")(rest)

    do_GET = do_POST = do_PUT = _take

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def page_json(self, rest: str) -> None:
        self._answer(200, b'{"id":1,"name":"one"}', content_type="application/json")

    def page_text(self, rest: str) -> None:
        self._answer(200, "grüße".encode("latin-1"), content_type="text/plain; charset=latin-1")

    def page_odd(self, rest: str) -> None:
        self._answer(200, "grüße".encode(), content_type="text/plain; charset=no-such-charset")

    def page_status(self, rest: str) -> None:
        self._answer(int(rest), b"sorry")

    def page_flaky(self, rest: str) -> None:
        self._answer(503 if self.visits[self.path] < int(rest) else 200, b'{"b":1,"a":2}')

    def page_to(self, rest: str) -> None:
        self._answer(302, location=rest)

    def page_loop(self, rest: str) -> None:
        self._answer(302, location="/loop/")

    def page_big(self, rest: str) -> None:
        self._answer(200, b"x" * int(rest))

    def page_bomb(self, rest: str) -> None:
        self._answer(200, gzip.compress(b"\0" * int(rest)), content_encoding="gzip")

    def page_cookie(self, rest: str) -> None:
        self._answer(200, set_cookie="session=secret; Path=/")

    def page_hang(self, rest: str) -> None:
        self.server.stopping.wait(30)  # type: ignore[attr-defined]
        self.close_connection = True


class Site:
    """A running server and what it has seen."""

    def __init__(self, server: ThreadingHTTPServer, handler: type[_Site]) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self._handler = handler

    @property
    def last(self) -> dict[str, Any]:
        return self._handler.seen[-1]

    @property
    def count(self) -> int:
        return len(self._handler.seen)


@contextmanager
def serving() -> Iterator[Site]:
    """Run the server in a thread of its own for as long as the block lasts."""
    handler = type("Handler", (_Site,), {"seen": [], "visits": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.stopping = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Site(server, handler)
    finally:
        server.stopping.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()
