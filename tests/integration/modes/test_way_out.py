"""http.request works in every mode, and reaches what the operator lets its app reach."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from in_mode import InMode, opened

from schemas.app import AppLimits
from schemas.outcome import ErrorKind
from schemas.settings import ExecutionMode

_OPEN = {"FLO_ALLOW_PRIVATE_NETWORK": "true"}


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("location", "http://169.254.169.254/latest/meta-data/")
        body = b'{"here": true}'
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("mode", list(ExecutionMode))
async def test_a_request_goes_out_and_its_answer_comes_in(mode: ExecutionMode, site: str, tmp_path: Path) -> None:
    async with opened(mode, tmp_path, **_OPEN) as worker:
        answer = await worker.result("http.request", {"url": f"{site}/"})

    assert (answer["status"], answer["json"]) == (200, {"here": True})


@pytest.mark.parametrize("mode", list(ExecutionMode))
@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/", "http://127.0.0.1:1/", "http://[::1]:1/", "https://10.0.0.1/"]
)
async def test_addresses_that_are_not_public_are_out_of_reach(mode: ExecutionMode, place: str, tmp_path: Path) -> None:
    async with opened(mode, tmp_path) as worker:
        error = await worker.error("http.request", {"url": place, "timeout_ms": 5000})

    assert error.kind is ErrorKind.FORBIDDEN
    assert "not a public address" in error.message


@pytest.mark.parametrize("mode", list(ExecutionMode))
async def test_an_app_that_may_reach_nothing_reaches_nothing(mode: ExecutionMode, site: str, tmp_path: Path) -> None:
    async with opened(mode, tmp_path, **_OPEN) as worker:
        worker.limits["acme"] = AppLimits(egress="none")
        error = await worker.error("http.request", {"url": f"{site}/"})

    assert error.kind is ErrorKind.FORBIDDEN
    assert "this app's flows may connect to nothing" in error.message


@pytest.mark.parametrize("mode", list(ExecutionMode))
async def test_an_allow_list_holds_for_hosts_and_ports(mode: ExecutionMode, site: str, tmp_path: Path) -> None:
    async with opened(mode, tmp_path, FLO_EGRESS="example.com:443", **_OPEN) as worker:
        error = await worker.error("http.request", {"url": f"{site}/"})
        worker.limits["acme"] = AppLimits(egress=(site.removeprefix("http://"),))
        answer = await worker.result("http.request", {"url": f"{site}/"})

    assert error.kind is ErrorKind.FORBIDDEN
    assert "127.0.0.1 is not among the hosts" in error.message
    assert answer["status"] == 200


@pytest.mark.parametrize("mode", list(ExecutionMode))
async def test_a_redirect_leads_nowhere_that_the_app_may_not_go(mode: ExecutionMode, site: str, tmp_path: Path) -> None:
    async with opened(mode, tmp_path, **_OPEN) as worker:
        worker.limits["acme"] = AppLimits(egress=(site.removeprefix("http://"),))
        error = await worker.error("http.request", {"url": f"{site}/away", "follow_redirects": True})

    assert error.kind is ErrorKind.FORBIDDEN
    assert "169.254.169.254 is not among the hosts" in error.message


async def test_a_command_in_a_box_of_its_runs_goes_the_same_way(site: str, per_run: InMode) -> None:
    fetch = f"python3 -c \"import urllib.request as u; u.urlopen('{site}/')\""

    error = await per_run.error("shell.exec", {"command": fetch})

    assert "HTTP Error 403" in error.message
