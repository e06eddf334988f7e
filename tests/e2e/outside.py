"""A server in the outside world that flows call, in the test's own hands: it counts, and may hold an answer back."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Outside:
    """Answers every request with `{}`; a subclass may do otherwise."""

    def __init__(self) -> None:
        #: How often each name, which is a path without its slash, was asked for.
        self.counted: Counter[str] = Counter()
        outside = self

        class Counting(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/")
                outside.counted[name] += 1
                status = outside.answer(name, outside.counted[name], self.connection)
                if status is None:
                    return
                self.send_response(status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET

            def log_message(self, *arguments: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
        self._server.daemon_threads = True

    def answer(self, name: str, nth: int, connection: socket.socket) -> int | None:
        """Give the status of the answer to the nth request for a name; None to say nothing."""
        return 200

    def let_all_go(self) -> None:
        """Hold nothing back any more: the test is over."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    @contextmanager
    def listening(self) -> Iterator[Self]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.let_all_go()
            self._server.shutdown()
            self._server.server_close()
            thread.join()
