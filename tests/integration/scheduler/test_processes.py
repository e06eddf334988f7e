"""The two processes, started for real: how they start, refuse to start, serve and stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.making import NO_OP
from tests.servers import free_port

#: Longest wait for a process to do what it should, in seconds.
PATIENCE = 60

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **environ: str) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        # Nothing listens on this Redis: the API serves all the same, and says so in /readyz.
        own = {"FLO_HOME": str(home), "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", **environ}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scheduler", *arguments],
            env={**env, **own, "PYTHONPATH": str(Path(__file__).parents[3])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, process.communicate()[1]
    return found[0]


def client_of(url: str, home: Path) -> httpx.Client:
    key = (home / "api_key").read_text().strip()
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE)


def refusal_of(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, out + err
    assert len(err.strip().splitlines()) == 1
    return err


def test_the_api_tells_its_address_serves_and_stops_in_good_order(start: Start, home: Path):
    process = start("api", "--port", "0")
    url = url_of(process)
    alive = httpx.get(f"{url}/healthz")
    ready = httpx.get(f"{url}/readyz")

    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE) == 0
    assert alive.status_code == 200
    assert (ready.status_code, ready.json()["database"]) == (503, "ok")
    assert "REDIS_URL" in ready.json()["broker"]


def test_an_open_stream_does_not_keep_the_api_from_stopping(start: Start, home: Path):
    process = start("api", "--port", "0")
    with client_of(url_of(process), home) as client:
        client.put("/api/v1/apps/shop/flows/greet", json=NO_OP).raise_for_status()
        client.put("/api/v1/apps/shop/events/go", json={"kind": "invoke", "flow": "greet"}).raise_for_status()
        with client.stream("POST", "/api/v1/apps/shop/events/go/invoke") as stream:
            lines = stream.iter_lines()
            first = next(lines)
            process.send_signal(signal.SIGTERM)
            rest = list(lines)

    assert process.wait(PATIENCE) == 0
    assert first == "event: run_queued"
    assert "event: run_completed" not in rest


def test_a_streamed_body_over_the_limit_is_refused_on_the_wire(start: Start, home: Path):
    process = start("api", "--port", "0", FLO_MAX_BODY_BYTES="2048")
    with client_of(url_of(process), home) as client:
        pieces = (b"x" * 1024 for _ in range(10))
        answer = client.put(
            "/api/v1/apps/shop/flows/greet", content=pieces, headers={"Content-Type": "application/json"}
        )

    assert answer.status_code == 413
    assert "FLO_MAX_BODY_BYTES" in answer.json()["detail"]


def test_a_port_that_is_taken_is_named_with_the_way_out(start: Start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        said = refusal_of(start("api", "--port", str(port)))

    assert f"port {port} on 127.0.0.1 is taken" in said
    assert "--port" in said


def test_an_api_without_keys_is_not_served_to_other_machines(start: Start):
    said = refusal_of(start("api", "--host", "0.0.0.0", "--port", "0", FLO_COMPAT_FLOWENGINE="open"))

    assert "FLO_COMPAT_FLOWENGINE is 'open'" in said
    assert "127.0.0.1" in said


@pytest.mark.parametrize("command", ["api", "tick"])
def test_an_unknown_setting_is_one_clear_sentence(start: Start, command: str):
    port = ["--port", "0"] if command == "api" else []

    said = refusal_of(start(command, *port, ASYNC_EXECUTION_BACKEND="rediss"))

    assert "ASYNC_EXECUTION_BACKEND is 'rediss'" in said


@pytest.mark.parametrize("command", ["api", "tick"])
def test_a_home_that_can_not_be_written_is_one_clear_sentence(start: Start, command: str):
    port = ["--port", "0"] if command == "api" else []

    said = refusal_of(start(command, *port, FLO_HOME="/proc/flo"))

    assert "FLO_HOME" in said


def test_a_secret_key_file_that_is_none_is_one_clear_sentence(start: Start, home: Path):
    home.mkdir()
    (home / "secret_key").write_text("not a key")

    said = refusal_of(start("api", "--port", "0"))

    assert str(home / "secret_key") in said


def test_the_tick_stops_in_good_order(start: Start):
    process = start("tick")
    assert process.stdout is not None
    begun = process.stdout.readline()

    process.send_signal(signal.SIGTERM)

    assert begun.startswith("flo tick")
    assert process.wait(PATIENCE) == 0


def test_two_processes_that_start_together_share_one_home(start: Start, home: Path):
    processes = [start("api", "--port", "0") for _ in range(2)]
    urls = [url_of(process) for process in processes]

    answers = []
    for url in urls:
        with client_of(url, home) as client:
            answers.append(client.get("/api/v1/runs").status_code)

    assert answers == [200, 200]


#: What every answer to any request must hold to: no failure of ours, and only what the OpenAPI document says.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"


def test_answers_to_made_up_requests_are_as_the_openapi_document_says(start: Start, home: Path, redis_url: str):
    url = url_of(start("api", "--port", "0", REDIS_URL=redis_url))
    with client_of(url, home) as client:
        client.put("/api/v1/apps/shop/flows/hi", json=NO_OP).raise_for_status()
        client.put("/api/v1/apps/shop/events/hi", json={"kind": "invoke", "flow": "hi"}).raise_for_status()
    key = (home / "api_key").read_text().strip()

    found = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json",
            "--header", f"Authorization: Bearer {key}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
            "--max-examples", "5", "--seed", "1", "--continue-on-failure",
            "--exclude-path-regex", "/invoke$",  # a stream that no worker ends
        ],
        capture_output=True, text=True, check=False, cwd=home,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout
