"""Integers beyond 64 bits and halves of surrogate pairs, through the API and both databases."""

from __future__ import annotations

import json

import pytest

from schemas.outcome import Parked, Succeeded, Wait, WaitKind
from schemas.run import EventType, Happening
from schemas.waitpoint import PATH, new_token, waitpoint_of
from tests.making import NO_OP

LARGE = 123_456_789_012_345_678_901
SMALL = -(2**63) - 1
JSON = {"Content-Type": "application/json"}
HALF = rb'{"payload": {"who": ["Ada", "\ud83d"]}}'


def completed(outputs):
    return Happening(EventType.NODE_COMPLETED, {"outputs": outputs, "attempt": 1, "duration_ms": 1}, "say")


# Integers


async def test_large_integers_stay_exact_from_the_payload_to_the_result(shop):
    payload = {"order": LARGE, "debt": [SMALL], "edge": 2**64 - 1}
    run = await shop.start(json={"payload": payload})
    await shop.finish(run, Succeeded(result=payload), [completed(payload)])

    view = (await shop.send("GET", f"/api/v1/runs/{run}")).json()
    polled = (await shop.send("GET", f"/api/v1/runs/{run}/events")).json()["items"]
    streamed = await shop.send("GET", f"/api/v1/runs/{run}/events", headers={"Accept": "text/event-stream"})

    assert view["payload"] == view["result"] == view["nodes"][0]["outputs"] == payload
    assert {type(view["result"][key]) for key in ("order", "edge")} == {int}
    assert [one["outputs"] for one in polled if "outputs" in one] == [payload]
    assert streamed.text.count(json.dumps(payload, separators=(",", ":"))) == 2


async def test_the_worker_gets_large_integers_as_they_came(shop):
    run = await shop.start(json={"payload": {"order": LARGE}})

    claim = await shop.take(run)

    assert claim.payload == {"order": LARGE}
    assert isinstance(claim.payload["order"], int)


async def test_a_flow_keeps_large_integers_and_the_same_one_is_the_same_version(shop):
    made = {"id": "make", "node_type": "transform.map", "config": {"map": {"order": LARGE}}}
    document = {**NO_OP, "nodes": [made]}

    first = await shop.push("large", document=document)
    second = await shop.push("large", document=document)
    kept = (await shop.send("GET", "/api/v1/apps/shop/flows/large")).json()["document"]

    assert (first.status_code, second.status_code) == (201, 200), first.text
    assert kept["nodes"][0]["config"]["map"] == {"order": LARGE}


async def test_an_idempotency_key_tells_large_integers_apart(shop):
    headers = {"Idempotency-Key": "order-1"}

    first = await shop.start(json={"payload": LARGE}, headers=headers)
    same = await shop.start(json={"payload": LARGE}, headers=headers)
    path = "/api/v1/apps/shop/events/go/invoke/async"
    other = await shop.send("POST", path, json={"payload": LARGE + 1}, headers=headers)

    assert same == first
    assert other.status_code == 409


async def test_a_webhook_brings_large_integers(shop):
    await shop.event("orders", "webhook", path="orders")

    answer = await shop.send("POST", "/hooks/shop/orders", json={"id": LARGE})
    run = (await shop.send("GET", f"/api/v1/runs/{answer.json()['run_ids'][0]}")).json()

    assert run["payload"]["body"] == {"id": LARGE}


# Halves of surrogate pairs


async def test_a_pushed_flow_with_a_half_is_refused_with_its_place(shop):
    body = json.dumps({**NO_OP, "nodes": [{"id": "\ud83d", "node_type": "debug.log"}]})

    answer = await shop.send("PUT", "/api/v1/apps/shop/flows/half", content=body, headers=JSON)

    (error,) = answer.json()["errors"]
    assert answer.status_code == 422
    assert error["path"] == "nodes[0].id"
    assert r"half of a surrogate pair (\ud83d, character 1)" in error["message"]
    assert "write both halves" in error["fix"]


@pytest.mark.parametrize("route", ["invoke", "invoke/async"])
async def test_a_payload_with_a_half_is_refused_with_its_place(shop, route):
    answer = await shop.send("POST", f"/api/v1/apps/shop/events/go/{route}", content=HALF, headers=JSON)

    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == ["payload.who[1]"]


async def test_an_event_with_a_half_in_its_config_is_refused_with_its_place(shop):
    body = r'{"kind": "webhook", "flow": "greet", "config": {"path": "a", "match": {"a": "\udc00"}}}'

    answer = await shop.send("PUT", "/api/v1/apps/shop/events/half", content=body, headers=JSON)

    assert [error["path"] for error in answer.json()["errors"]] == ["config.match.a"]


async def test_a_whole_pair_is_text_like_any_other(shop):
    run = await shop.start(content=rb'{"payload": "\ud83d\ude00"}', headers=JSON)

    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["payload"] == "😀"


@pytest.mark.parametrize(
    ("kind", "content", "body"),
    [
        ("application/json", rb'{"text": "cut \ud83d", "n": 1}', {"text": "cut \ufffd", "n": 1}),
        ("", rb'["\udc00"]', ["\ufffd"]),
        ("text/plain; charset=unicode_escape", rb"\ud83d", "\ufffd"),
        ("text/plain; charset=idna", b"plain", "plain"),
    ],
)
async def test_a_webhook_with_a_half_is_kept_with_a_replacement(shop, kind, content, body):
    await shop.event("orders", "webhook", path="orders")

    answer = await shop.send("POST", "/hooks/shop/orders", content=content, headers={"Content-Type": kind})

    assert answer.status_code == 202, answer.text
    run = (await shop.send("GET", f"/api/v1/runs/{answer.json()['run_ids'][0]}")).json()
    assert run["payload"]["body"] == body


@pytest.mark.parametrize("kind", ["application/json", ""])
async def test_an_answer_to_a_waiting_run_with_a_half_is_kept_with_a_replacement(shop, kind):
    run, token = await shop.start(), new_token()
    wait = Wait(
        node_id="it", kind=WaitKind.WEBHOOK, until=None, waitpoint=waitpoint_of(token), url=f"http://flo{PATH}{token}"
    )
    await shop.finish(run, Parked(waits=(wait,)))

    answer = await shop.send("POST", PATH + token, content=rb'{"by": "\ud83d"}', headers={"Content-Type": kind})

    events = (await shop.send("GET", f"/api/v1/runs/{run}/events")).json()["items"]
    assert answer.status_code == 200, answer.text
    assert [one["answer"]["body"] for one in events if "answer" in one] == [{"by": "\ufffd"}]


async def test_a_result_with_a_half_is_kept_with_a_replacement(shop):
    run = await shop.start()

    await shop.finish(run, Succeeded(result={"\ud83d": "\udc00"}), [completed({"text": "\ud83d"})])

    view = (await shop.send("GET", f"/api/v1/runs/{run}")).json()
    assert view["result"] == {"\ufffd": "\ufffd"}
    assert view["nodes"][0]["outputs"] == {"text": "\ufffd"}
