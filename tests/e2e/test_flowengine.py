"""FlowEngine's own examples through its own API, on a real `flo dev`: no key, as its clients send none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.e2e.flo_program import PATIENCE, FloDev, flo_dev

EXAMPLES = Path(__file__).parents[1] / "data" / "flowengine"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloDev]:
    home = tmp_path_factory.mktemp("flowengine") / "home"
    with flo_dev(home, FLO_COMPAT_FLOWENGINE="open", FLO_ALLOW_PRIVATE_NETWORK="1") as running:
        assert running.endpoint
        yield running


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"id":1}')

    def log_message(self, format: str, *args: Any) -> None:
        return


@contextmanager
def site() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def feed(dev: FloDev) -> ClientConnection:
    listening: ClientConnection = connect(dev.endpoint["api"].replace("http", "ws", 1) + "/api/events")
    return listening


def run_example(dev: FloDev, name: str, inputs: dict[str, Any] | None = None) -> httpx.Response:
    """Create the example and execute it, as FlowEngine's clients do."""
    document = json.loads((EXAMPLES / f"{name}.json").read_text())
    with httpx.Client(base_url=dev.endpoint["api"], timeout=PATIENCE) as client:
        created = client.post("/api/workflows", json=document)
        assert created.status_code == 201, created.text
        return client.post(f"/api/workflows/{created.json()['id']}/execute", json={"inputs": inputs or {}})


def events_of(listening: ClientConnection, execution: str) -> list[Any]:
    """Listen until the execution is over."""
    heard: list[Any] = []
    while not heard or heard[-1]["type"] != "WorkflowCompleted":
        event = json.loads(listening.recv(PATIENCE))
        if event["execution_id"] == execution:
            heard.append(event)
    return heard


def message_of(heard: list[Any]) -> Any:
    """Give what the last node logged."""
    return [event["outputs"] for event in heard if event["type"] == "NodeCompleted"][-1]


@pytest.mark.timeout(180)
def test_streaming_demo_streams_each_line_and_completes(dev: FloDev) -> None:
    with feed(dev) as listening:
        answer = run_example(dev, "streaming_demo")
        assert answer.status_code == 200, answer.text
        heard = events_of(listening, answer.json()["execution_id"])

    lines = [event["event"]["line"] for event in heard if event.get("event", {}).get("event_type") == "StdoutLine"]
    assert (answer.json()["completed_nodes"], answer.json()["total_nodes"]) == (3, 3)
    assert heard[0]["type"] == "WorkflowStarted"
    assert heard[0]["workflow_id"] == "a1b2c3d4-e5f6-4890-abcd-ef1234567004"
    assert lines[:6] == ["Tick: 5", "Tick: 4", "Tick: 3", "Tick: 2", "Tick: 1", "🚀 Liftoff!"]
    assert heard[-1]["success"] is True
    assert "5" in json.dumps(message_of(heard))


@pytest.mark.timeout(180)
def test_retry_backoff_demo_succeeds_at_the_third_attempt(dev: FloDev) -> None:
    with feed(dev) as listening:
        answer = run_example(dev, "retry_backoff_demo")
        assert answer.status_code == 200, answer.text
        heard = events_of(listening, answer.json()["execution_id"])

    retries = [event for event in heard if "trying again" in event.get("event", {}).get("message", "")]
    assert (answer.json()["completed_nodes"], answer.json()["total_nodes"]) == (2, 2)
    assert len(retries) == 2
    assert "Attempt 3\\nSuccess on attempt 3!" in json.dumps(message_of(heard))


@pytest.mark.timeout(180)
def test_data_pipeline_fetches_parses_and_logs(dev: FloDev) -> None:
    with site() as url, feed(dev) as listening:
        answer = run_example(dev, "data_pipeline", {"url": url})
        assert answer.status_code == 200, answer.text
        heard = events_of(listening, answer.json()["execution_id"])

    (parsed,) = [event["outputs"]["parsed"] for event in heard if "parsed" in event.get("outputs", {})]
    assert (answer.json()["completed_nodes"], answer.json()["total_nodes"]) == (5, 5)
    assert parsed == {"type": "Json", "value": {"id": 1}}
    assert '"id": 1' in json.loads(json.dumps(message_of(heard)["message"]["value"]))
