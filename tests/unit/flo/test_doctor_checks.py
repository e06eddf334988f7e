"""What `flo doctor` says of browsers and of executors elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from flo.doctor import checks
from flo.doctor.executors import http_executors


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None: ...


@pytest.fixture
def executor() -> Iterator[str]:
    """Something that says it is well, as an executor does."""
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def gone() -> str:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        return f"http://127.0.0.1:{server.server_port}"


def test_a_missing_browser_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "_CHROMIUM", (str(tmp_path / "chromium"),))

    found = checks.chromium({})

    assert (found.ok, found.needed) == (False, False)
    assert "browser.render" in found.detail
    assert found.fix == "sudo apt-get install chromium"


def test_a_browser_is_shown_with_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\necho Chromium 1.2\n")
    browser.chmod(0o755)
    monkeypatch.setattr(checks, "_CHROMIUM", (str(tmp_path / "none"), str(browser)))

    found = checks.chromium({})

    assert (found.ok, found.detail) == (True, "Chromium 1.2")


def test_doctor_looks_for_the_browser_where_the_node_does() -> None:
    script = (Path(__file__).parents[3] / "workers" / "nodes" / "browser.py").read_text()

    assert " ".join(checks._CHROMIUM) in script


def test_executors_that_answer_are_well(executor: str) -> None:
    found = http_executors({"EXECUTOR_URL": f"{executor}, {executor}/"})

    assert found.ok
    assert found.detail == f"{executor}: answers; {executor}: answers"


def test_an_executor_that_is_gone_is_named_with_the_fix(executor: str, gone: str) -> None:
    found = http_executors({"EXECUTOR_URL": f"{executor},{gone}"})

    assert not found.ok
    assert f"{executor}: answers; {gone}: does not answer" in found.detail
    assert f"take {gone} out of EXECUTOR_URL" in found.fix


def test_what_is_no_executor_is_told_so(executor: str) -> None:
    assert "is no executor (it answered 404)" in http_executors({"EXECUTOR_URL": f"{executor}/other"}).detail


def test_what_is_no_url_is_told_so() -> None:
    assert not http_executors({"EXECUTOR_URL": "nonsense"}).ok


@pytest.mark.parametrize("setting", ["FLO_EXECUTOR", "EXECUTION_BACKEND"])
def test_executors_are_needed_where_runs_are_handed_to_them(setting: str) -> None:
    assert http_executors({setting: "http"}).needed
    assert not http_executors({}).needed
    assert "set EXECUTOR_URL" in http_executors({}).fix
