"""Starting runs by call: accepted, streamed, waited for; idempotency; what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from schemas.outcome import ErrorKind, Failed, RunError
from schemas.run import EventType, Happening

ASYNC = "/api/v1/apps/shop/events/go/invoke/async"
INVOKE = "/api/v1/apps/shop/events/go/invoke"
JSON = {"Accept": "application/json"}


async def test_an_accepted_run_is_in_sql_and_on_its_lane(shop):
    answer = await shop.send("POST", ASYNC, json={"payload": {"name": "Ada"}, "priority": 2})

    started = answer.json()
    job = await shop.queue.take("flow")
    run = (await shop.send("GET", answer.headers["location"])).json()
    assert (answer.status_code, started["status"], started["backend"]) == (202, "queued", "redis")
    assert (job.run_id, job.priority) == (started["run_id"], 2)
    assert (run["payload"], run["status"], run["nodes"][0]["status"]) == ({"name": "Ada"}, "queued", "pending")


async def test_a_run_is_accepted_while_the_broker_is_away(shop):
    shop.queue.available = False

    run = await shop.start()

    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["status"] == "queued"


async def test_no_body_means_an_empty_payload(shop):
    run = await shop.start()

    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["payload"] == {}


@pytest.mark.parametrize("payload", [None, 0, "text", [1, {"a": None}], {"deep": [[[[]]]]}, 1.5, True])
async def test_any_json_is_a_payload(shop, payload):
    run = await shop.start(json={"payload": payload})

    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["payload"] == payload


async def test_the_same_idempotency_key_leads_to_the_same_run(shop):
    headers = {"Idempotency-Key": "order-7"}

    first = await shop.start(json={"payload": {"n": 1}}, headers=headers)
    second = await shop.start(json={"payload": {"n": 1}}, headers=headers)

    assert first == second


async def test_fifty_calls_at_once_with_one_key_make_one_run(shop):
    headers = {"Idempotency-Key": "order-7"}

    runs = await asyncio.gather(*(shop.start(json={"payload": {"n": 1}}, headers=headers) for _ in range(50)))

    assert len(set(runs)) == 1
    assert len((await shop.send("GET", "/api/v1/runs")).json()["items"]) == 1


async def test_an_idempotency_key_with_another_request_is_a_conflict(shop):
    headers = {"Idempotency-Key": "order-7"}
    first = await shop.start(json={"payload": {"n": 1}}, headers=headers)

    answer = await shop.send("POST", ASYNC, json={"payload": {"n": 2}}, headers=headers)

    assert answer.status_code == 409
    assert first in answer.json()["detail"]


async def test_the_order_of_keys_does_not_make_another_request(shop):
    headers = {"Idempotency-Key": "order-7", "Content-Type": "application/json"}

    first = await shop.start(content=b'{"payload": {"a": 1, "b": 2}}', headers=headers)
    second = await shop.start(content=b'{"payload": {"b": 2, "a": 1}}', headers=headers)

    assert first == second


@pytest.mark.parametrize("key", ["", "flo:due:x", "x" * 256])
async def test_a_key_that_can_not_be_one_is_refused(shop, key):
    answer = await shop.send("POST", ASYNC, headers={"Idempotency-Key": key})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "Idempotency-Key"


async def test_an_older_version_can_be_asked_for(shop):
    await shop.push(document={"name": "new", "nodes": [{"id": "x", "node_type": "debug.log"}]})

    run = await shop.start(json={"version": 1})

    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["version"] == 1


async def test_a_version_that_is_not_there_is_not_found(shop):
    answer = await shop.send("POST", ASYNC, json={"version": 9})

    assert answer.status_code == 404
    assert "no version 9" in answer.json()["detail"]


async def test_every_wrong_field_is_named(shop):
    body = {"priority": 10, "run_at": "2026-01-01T00:00:00", "mode": "dockr", "pyload": {}, "version": 0}

    answer = await shop.send("POST", ASYNC, json=body)

    errors = {error["path"]: error for error in answer.json()["errors"]}
    assert answer.status_code == 422
    assert set(errors) == {"priority", "run_at", "mode", "pyload", "version"}
    assert errors["pyload"]["fix"] == 'did you mean "payload"?'
    assert "allowed: local, inline" in errors["mode"]["message"]


async def test_a_mode_outside_the_apps_list_is_refused_with_the_list(shop):
    answer = await shop.send("POST", ASYNC, json={"mode": "docker"})

    assert answer.status_code == 403
    assert "allowed: inline, namespace, local" in answer.json()["detail"]


async def test_a_local_run_is_written_down_and_sent_to_no_one(shop):
    answer = await shop.send("POST", ASYNC, json={"mode": "local"})
    await shop.spine.publisher.settle()

    assert (answer.json()["backend"], await shop.queue.depth("flow")) == ("local", 0)
    assert (await shop.send("GET", answer.headers["location"])).json()["status"] == "queued"


async def test_a_run_for_later_is_left_to_the_relay(shop):
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    await shop.start(json={"run_at": later})
    await shop.spine.publisher.settle()

    assert await shop.queue.depth("flow") == 0


async def test_an_event_that_is_not_there_is_named_with_its_likeness(shop):
    answer = await shop.send("POST", "/api/v1/apps/shop/events/gone/invoke/async")

    assert answer.status_code == 404
    assert 'did you mean "go"?' in answer.json()["detail"]


async def test_waiting_for_the_end_answers_the_result(shop):
    waiting = asyncio.create_task(shop.send("POST", INVOKE, json={"payload": {}}, headers=JSON))
    job = await shop.queue.take("flow")
    await shop.finish(job.run_id)

    answer = (await waiting).json()

    assert answer == {"run_id": job.run_id, "status": "succeeded", "result": {"done": True}, "error": None}


async def test_waiting_for_a_run_that_fails_answers_its_error(shop):
    waiting = asyncio.create_task(shop.send("POST", INVOKE, headers=JSON))
    job = await shop.queue.take("flow")
    await shop.finish(job.run_id, Failed(error=RunError(kind=ErrorKind.USER, message="boom", node_id="say")))

    answer = (await waiting).json()

    assert (answer["status"], answer["error"]["message"], answer["error"]["node_id"]) == ("failed", "boom", "say")


async def test_waiting_too_long_answers_how_to_go_on(shop):
    answer = await shop.send("POST", f"{INVOKE}?wait=0.05", headers=JSON)

    assert answer.status_code == 202
    assert answer.json()["poll_token"]


async def test_a_streamed_run_ends_with_its_completion(shop):
    streaming = asyncio.create_task(shop.send("POST", INVOKE))
    job = await shop.queue.take("flow")
    await shop.finish(job.run_id, happenings=[Happening(EventType.LOG, {"level": "info", "message": "a\nb"}, "say")])

    answer = await streaming

    frames = [frame.split("\n") for frame in answer.text.strip().split("\n\n")]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [frame[0] for frame in frames] == [
        "event: run_queued",
        "event: run_started",
        "event: log",
        "event: run_completed",
    ]
    assert [frame[1] for frame in frames] == ["id: 1", "id: 2", "id: 3", "id: 4"]
    assert '"message":"a\\nb"' in frames[2][2]


async def test_a_caller_that_hangs_up_does_not_stop_the_run(shop):
    streaming = asyncio.create_task(shop.send("POST", INVOKE))
    job = await shop.queue.take("flow")

    streaming.cancel()
    await asyncio.wait([streaming])
    await shop.finish(job.run_id)

    assert (await shop.send("GET", f"/api/v1/runs/{job.run_id}")).json()["status"] == "succeeded"


async def test_a_stream_ends_when_the_server_stops(shop):
    streaming = asyncio.create_task(shop.send("POST", INVOKE))
    await shop.queue.take("flow")

    shop.spine.stopping.set()

    assert (await streaming).status_code == 200
