"""Requests that are wrong: each gets a problem document with the right status, and changes nothing."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from scheduler.targets import Targets

PUSH = "/api/v1/apps/shop/flows/greet"
ASYNC = "/api/v1/apps/shop/events/go/invoke/async"
JSON = {"Content-Type": "application/json"}


def is_problem(answer, status):
    document = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["type"].startswith("urn:flo:problem:")
    assert document["detail"]
    return document


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"name": "x",\n "nodes": ]', "line 2, column 11"),
        (b"{", "line 1"),
        (b'{"a": NaN}', "line 1"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "line 1"),
    ],
)
async def test_malformed_json_is_400_with_its_place(shop, body, place):
    document = is_problem(await shop.send("PUT", PUSH, content=body[:90_000], headers=JSON), 400)

    assert place in document["detail"]


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"true"])
async def test_json_that_is_no_object_is_422(shop, body):
    is_problem(await shop.send("PUT", PUSH, content=body, headers=JSON), 422)
    is_problem(await shop.send("POST", ASYNC, content=body, headers=JSON), 422)


async def test_a_body_nested_too_deep_is_422(shop):
    body = b'{"payload":' + b"[" * 300 + b"]" * 300 + b"}"

    is_problem(await shop.send("POST", ASYNC, content=body, headers=JSON), 422)


async def test_a_body_of_another_kind_is_415(shop):
    is_problem(await shop.send("POST", ASYNC, content=b"a=1", headers={"Content-Type": "text/plain"}), 415)


async def test_a_body_over_the_limit_is_413_and_nothing_is_kept(shop):
    body = b'{"payload":"' + b"x" * 100_000 + b'"}'

    document = is_problem(await shop.send("POST", ASYNC, content=body, headers=JSON), 413)

    assert "at most 100,000" in document["detail"]
    assert (await shop.send("GET", "/api/v1/runs")).json()["items"] == []


async def test_a_streamed_body_over_the_limit_is_413_at_the_first_byte_too_many(shop):
    sent = 0

    async def pieces():
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 10_000

    is_problem(await shop.send("POST", ASYNC, content=pieces(), headers=JSON), 413)

    assert sent < 20


async def test_an_unknown_route_is_404(shop):
    is_problem(await shop.send("GET", "/api/v1/nothing"), 404)


async def test_an_unknown_method_is_405_with_those_there_are(shop):
    answer = await shop.send("PATCH", PUSH)

    document = is_problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET, PUT"
    assert "allowed: DELETE, GET, PUT" in document["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/runs?limit=0",
        "/api/v1/runs?limit=1001",
        "/api/v1/runs?limit=many",
        "/api/v1/runs?status=done",
        "/api/v1/runs?lane=fast",
        "/api/v1/apps/a%20b/flows",
        "/api/v1/apps/..%2f/flows",
        "/api/v1/apps/shop/flows/greet?version=-1",
        "/api/v1/runs/run_1/events?timeout=9999",
        "/api/v1/runs/run_1/events?after=-1",
        "/api/v1/runs?cursor=%00",
        "/api/v1/runs?event=%00",
        "/api/v1/runs/run%00",
        "/api/v1/apps/shop/flows?cursor=a%00",
        "/hooks/shop/a%00b",
    ],
)
async def test_a_wrong_parameter_is_refused(shop, path):
    answer = await shop.send("GET", path)

    assert answer.status_code in (404, 422)
    is_problem(answer, answer.status_code)


async def test_a_mistake_in_a_parameter_says_what_was_given(shop):
    document = is_problem(await shop.send("GET", "/api/v1/runs?limit=5000"), 422)

    assert document["errors"][0]["path"] == "limit"
    assert "5000" in document["errors"][0]["message"]


async def test_the_key_is_checked_before_the_body(shop):
    answer = await shop.send("POST", ASYNC, content=b"{", headers={**JSON, "Authorization": "Bearer no"})

    is_problem(answer, 401)


async def test_a_failure_of_flos_own_tells_an_id_and_no_more(shop, monkeypatch, capsys):
    async def broken(self, app, event):
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(Targets, "of_event", broken)

    document = is_problem(await shop.send("POST", ASYNC), 500)

    assert "hunter2" not in str(document)
    assert document["error_id"] in document["detail"]


async def test_a_database_that_is_away_is_503_with_a_time_to_come_back(shop, monkeypatch):
    async def away(self, app, event):
        raise OperationalError("SELECT 1", {}, Exception("database is locked"))

    monkeypatch.setattr(Targets, "of_event", away)

    answer = await shop.send("POST", ASYNC)

    is_problem(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (ASYNC, {"concurrency_key": "a\0b"}),
        ("/api/v1/keys", {"app": "a\0b", "scopes": ["read"]}),
        ("/api/v1/runs/run_1/cancel", {"reason": "a\0b"}),
    ],
)
async def test_a_text_that_no_database_keeps_is_refused(shop, path, body):
    answer = await shop.send("POST", path, json=body)

    assert answer.status_code in (404, 422)


async def test_a_payload_keeps_every_character(shop):
    payload = {"a\0b": "\0 \u2028 \U0001f600 \x7f"}

    run = await shop.start(json={"payload": payload})

    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["payload"] == payload
