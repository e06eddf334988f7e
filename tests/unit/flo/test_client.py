"""The client against a server that is a function: what it sends, and how it takes up a broken stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from flo import client as client_module
from flo.client import AsyncFloClient, FloClient
from flo.errors import NoServer

Answer = Callable[[httpx.Request], httpx.Response]

COMPLETED = 3


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client_module, "_RETRY_PAUSES", (0.0, 0.0))
    monkeypatch.setenv("FLO_HOME", str(tmp_path))
    for name in ("FLO_URL", "FLO_API_KEY", "FLO_APP"):
        monkeypatch.delenv(name, raising=False)


def client(answer: Answer, **options: str) -> FloClient:
    return FloClient("http://flo.test", transport=httpx.MockTransport(answer), **options)


def frames(*seqs: int) -> bytes:
    events = [{"seq": seq, "run_id": "run_1", "type": "run_completed" if seq == COMPLETED else "log"} for seq in seqs]
    return b"".join(f"id: {event['seq']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def test_a_push_puts_the_document_with_the_key() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(201, json={"version": 1})

    pushed = client(answer, key="flo_key", app="shop").push("a b", {"name": "a b"})

    assert pushed == {"version": 1}
    assert (asked[0].method, asked[0].url.raw_path) == ("PUT", b"/api/v1/apps/shop/flows/a%20b")
    assert asked[0].headers["authorization"] == "Bearer flo_key"
    assert json.loads(asked[0].content) == {"name": "a b"}


def test_the_key_of_the_home_is_never_sent_to_another_machine(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text("flo_admin")
    sent: dict[str, str | None] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        sent[request.url.host] = request.headers.get("authorization")
        return httpx.Response(200, json={})

    FloClient("http://127.0.0.1:1", transport=httpx.MockTransport(answer)).run("run_1")
    FloClient("http://flo.test", transport=httpx.MockTransport(answer)).run("run_1")

    assert sent == {"127.0.0.1": "Bearer flo_admin", "flo.test": None}


def test_a_list_is_read_page_by_page_up_to_its_limit() -> None:
    pages = {None: ([1, 2], "two"), "two": ([3, 4], "three")}

    def answer(request: httpx.Request) -> httpx.Response:
        items, cursor = pages[request.url.params.get("cursor")]
        return httpx.Response(200, json={"items": items[: int(request.url.params["limit"])], "next_cursor": cursor})

    assert client(answer).runs(limit=3) == [1, 2, 3]  # type: ignore[comparison-overlap]


def test_a_broken_stream_is_taken_up_after_the_last_event() -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        return httpx.Response(200, content=frames(1, 2) if len(asked) == 1 else frames(3))

    seqs = [event["seq"] for event in client(answer).follow("run_1")]

    assert seqs == [1, 2, 3]
    assert asked == [None, "2"]


def test_a_redriven_run_is_followed_past_the_end_that_it_had_before() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=frames(1, COMPLETED, 4, COMPLETED))

    kinds = [event["type"] for event in client(answer).follow("run_1")]

    assert kinds == ["log", "run_completed", "log", "run_completed"]


def test_an_invocation_whose_stream_breaks_is_followed_by_its_run() -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        return httpx.Response(200, content=frames(1, 2) if request.method == "POST" else frames(3))

    seqs = [event["seq"] for event in client(answer).stream("hello", {})]

    assert seqs == [1, 2, 3]
    assert asked == [
        ("POST", "/api/v1/apps/default/events/hello/invoke"),
        ("GET", "/api/v1/runs/run_1/events"),
    ]


def test_a_server_that_stays_away_ends_the_following() -> None:
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        if len(asked) > 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=frames(1))

    with pytest.raises(NoServer, match="no server answers at http://flo"):
        list(client(answer).follow("run_1"))

    assert len(asked) == 3


def test_a_server_that_never_was_there_is_an_error_at_once() -> None:
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        raise httpx.ConnectError("refused")

    with pytest.raises(NoServer):
        list(client(answer).follow("run_1"))

    assert len(asked) == 1


async def test_the_async_client_takes_up_a_broken_stream_too() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=frames(3) if "last-event-id" in request.headers else frames(1, 2))

    async with AsyncFloClient("http://flo.test", transport=httpx.MockTransport(answer)) as flo:
        seqs = [event["seq"] async for event in flo.follow("run_1")]

    assert seqs == [1, 2, 3]
