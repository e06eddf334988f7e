"""Webhooks over HTTP: kept with their runs, deduplicated, fanned out, answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json

import pytest

from schemas.outcome import ErrorKind, Failed, RunError, Succeeded
from schemas.run import EventType, Happening

ANYONE = {"Authorization": ""}


async def hook(api, path="orders", *, name="orders", **config):
    answer = await api.event(name, "webhook", path=path, **config)
    assert answer.status_code in (200, 201), answer.text


async def deliver(api, path="orders", method="POST", headers=None, **rest):
    return await api.send(method, f"/hooks/shop/{path}", headers={**ANYONE, **(headers or {})}, **rest)


def github(body, *, delivery="d-1", secret="s3cret", event="push"):
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "X-Hub-Signature-256": f"sha256={digest}",
        "X-GitHub-Delivery": delivery,
        "X-GitHub-Event": event,
        "Content-Type": "application/json",
    }


async def runs(api):
    return (await api.send("GET", "/api/v1/runs")).json()["items"]


async def test_a_delivery_starts_a_run_with_the_whole_request(shop):
    await hook(shop)

    answer = await deliver(shop, "orders?page=2", json={"id": 7})

    run = (await shop.send("GET", f"/api/v1/runs/{answer.json()['run_ids'][0]}")).json()
    assert answer.status_code == 202
    assert answer.json()["delivery_id"].startswith("dlv_")
    assert run["lane"] == "webhook"
    assert (run["payload"]["body"], run["payload"]["query"]) == ({"id": 7}, {"page": "2"})
    assert (run["payload"]["method"], run["payload"]["path"]) == ("POST", "orders")
    assert (await shop.queue.take("webhook")).run_id == run["run_id"]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_any_method_is_a_delivery(shop, method):
    await hook(shop)

    assert (await deliver(shop, method=method)).status_code == 202


async def test_a_signed_delivery_is_believed_and_an_altered_one_is_not(shop):
    await hook(shop, verify={"scheme": "github", "secret": "s3cret"})
    body = b'{"id": 7}'

    good = await deliver(shop, content=body, headers=github(body))
    bad = await deliver(shop, content=body + b" ", headers=github(body, delivery="d-2"))
    none = await deliver(shop, content=body)

    assert (good.status_code, bad.status_code, none.status_code) == (202, 401, 401)
    assert "x-hub-signature-256" in none.json()["detail"]
    assert len(await runs(shop)) == 1


async def test_a_secret_by_reference_follows_its_changes(shop):
    await shop.send("PUT", "/api/v1/apps/shop/secrets/gh", json={"value": "old"})
    await hook(shop, verify={"scheme": "github", "secret_ref": "gh"})
    body = b"{}"
    first = await deliver(shop, content=body, headers=github(body, secret="old"))

    await shop.send("PUT", "/api/v1/apps/shop/secrets/gh", json={"value": "new"})

    assert first.status_code == 202
    assert (await deliver(shop, content=body, headers=github(body, secret="old"))).status_code == 401
    assert (await deliver(shop, content=body, headers=github(body, secret="new", delivery="d-2"))).status_code == 202


async def test_a_repeated_delivery_answers_with_the_first_and_runs_nothing(shop):
    await hook(shop, verify={"scheme": "github", "secret": "s3cret"})
    body = b"{}"

    first = await deliver(shop, content=body, headers=github(body))
    again = await deliver(shop, content=body, headers=github(body))

    assert again.status_code == 202
    assert again.json() == first.json()
    assert len(await runs(shop)) == 1


async def test_twenty_copies_of_a_delivery_at_once_make_one_run(shop):
    await hook(shop, verify={"scheme": "github", "secret": "s3cret"})
    body = b"{}"

    answers = await asyncio.gather(*(deliver(shop, content=body, headers=github(body)) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["delivery_id"] for answer in answers}) == 1
    assert len(await runs(shop)) == 1


async def test_deliveries_without_an_id_of_their_own_are_all_new(shop):
    await hook(shop)

    await asyncio.gather(*(deliver(shop, json={}) for _ in range(5)))

    assert len(await runs(shop)) == 5


async def test_every_event_on_the_path_that_matches_gets_a_run(shop):
    await hook(shop, name="opened", match={"body.action": "opened"})
    await hook(shop, name="all", map={"what": "body.action"})
    await hook(shop, name="closed", match={"body.action": ["closed", "merged"]})

    answer = await deliver(shop, json={"action": "opened"})

    started = {run["event"]: run["payload"] for run in await runs(shop)}
    assert len(answer.json()["run_ids"]) == 2
    assert set(started) == {"opened", "all"}
    assert started["all"] == {"what": "opened"}


async def test_a_delivery_that_matches_nothing_is_kept_without_a_run(shop):
    await hook(shop, match={"body.action": "opened"})

    answer = await deliver(shop, json={"action": "closed"})

    assert (answer.status_code, answer.json()["run_ids"]) == (202, [])


async def test_only_events_that_believe_the_sender_get_a_run(shop):
    await hook(shop, name="open")
    await hook(shop, name="strict", verify={"scheme": "token", "secret": "t0ken"})

    await deliver(shop, json={})

    assert [run["event"] for run in await runs(shop)] == ["open"]


async def test_a_token_never_reaches_the_flow(shop):
    await hook(shop, verify={"scheme": "token", "secret": "t0ken", "header": "X-Token"})

    await deliver(shop, json={}, headers={"X-Token": "t0ken", "Cookie": "c=1"})

    assert "t0ken" not in json.dumps((await runs(shop))[0]["payload"])


async def test_an_unknown_path_is_404(shop):
    assert (await deliver(shop, "nowhere")).status_code == 404


async def test_a_retired_flow_is_410_and_a_paused_event_409(shop):
    await hook(shop)
    await shop.send("POST", "/api/v1/apps/shop/events/orders/pause")
    paused = await deliver(shop)
    await shop.send("POST", "/api/v1/apps/shop/events/orders/resume")
    await shop.send("DELETE", "/api/v1/apps/shop/flows/greet")
    retired = await deliver(shop)

    assert (paused.status_code, retired.status_code) == (409, 410)
    assert "paused" in paused.json()["detail"]


async def test_a_paused_event_does_not_stop_the_others_on_its_path(shop):
    await hook(shop, name="one")
    await hook(shop, name="two")
    await shop.send("POST", "/api/v1/apps/shop/events/one/pause")

    await deliver(shop, json={})

    assert [run["event"] for run in await runs(shop)] == ["two"]


async def test_a_body_over_the_limit_is_413(shop):
    await hook(shop)

    assert (await deliver(shop, content=b"x" * 100_001)).status_code == 413


async def test_malformed_json_is_400_and_nothing_is_kept(shop):
    await hook(shop)

    answer = await deliver(shop, content=b'{"a":', headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert await runs(shop) == []


async def test_slacks_question_is_answered_without_a_run(shop):
    await hook(shop, verify={"scheme": "slack", "secret": "s3cret"})
    body = b'{"type":"url_verification","challenge":"c1"}'
    stamp = str(int(__import__("time").time()))
    digest = hmac.new(b"s3cret", f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}

    answer = await deliver(shop, content=body, headers={**headers, "Content-Type": "application/json"})

    assert (answer.status_code, answer.json()) == (200, {"challenge": "c1"})
    assert await runs(shop) == []


async def test_sync_answers_what_the_flow_responded(shop):
    await hook(shop)
    waiting = asyncio.create_task(deliver(shop, "orders/sync", json={}))
    job = await shop.queue.take("webhook")
    said = [
        Happening(EventType.NODE_STARTED, {"node_type": "respond", "attempt": 1}, "answer"),
        Happening(
            EventType.NODE_COMPLETED,
            {"outputs": {"value": {"id": 7}, "status": 201, "headers": {"X-Id": "7"}}, "attempt": 1},
            "answer",
        ),
    ]
    await shop.finish(job.run_id, Succeeded(result={"id": 7}), said)

    answer = await waiting

    assert (answer.status_code, answer.json(), answer.headers["x-id"]) == (201, {"id": 7}, "7")
    assert answer.headers["x-flo-run-id"] == job.run_id


async def test_sync_says_at_once_that_the_run_failed(shop):
    await hook(shop)
    waiting = asyncio.create_task(deliver(shop, "orders/sync", json={}))
    job = await shop.queue.take("webhook")
    await shop.finish(job.run_id, Failed(error=RunError(kind=ErrorKind.USER, message="boom")))

    answer = await waiting

    assert (answer.status_code, answer.json()["run_id"]) == (502, job.run_id)
    assert answer.json()["error"]["message"] == "boom"


async def test_sync_gives_up_waiting_with_the_run_to_look_for(shop):
    await hook(shop, sync_timeout_s=0.05)

    answer = await deliver(shop, "orders/sync", json={})

    assert answer.status_code == 504
    assert answer.json()["run_id"] in answer.json()["detail"]


async def test_a_repeat_of_a_sync_delivery_waits_for_the_first_ones_run(shop):
    await hook(shop, verify={"scheme": "github", "secret": "s3cret"})
    body = b"{}"
    waiting = [asyncio.create_task(deliver(shop, "orders/sync", content=body, headers=github(body))) for _ in range(2)]
    job = await shop.queue.take("webhook")
    await shop.finish(job.run_id, Succeeded(result={"n": 1}))

    answers = await asyncio.gather(*waiting)

    assert [answer.json() for answer in answers] == [{"n": 1}] * 2
