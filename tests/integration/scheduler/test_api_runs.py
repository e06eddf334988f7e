"""Runs: shown, listed, followed, cancelled, retried; dead letters redriven."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from schemas.outcome import Cancelled, Retry
from schemas.run import EventType, Happening

STREAM = {"Accept": "text/event-stream"}

STEPS = [
    Happening(EventType.NODE_STARTED, {"node_type": "debug.log", "attempt": 1}, "say"),
    Happening(EventType.NODE_COMPLETED, {"outputs": {"message": "hello"}, "attempt": 1, "duration_ms": 1}, "say"),
]


async def events(api, run, query="", **rest):
    return await api.send("GET", f"/api/v1/runs/{run}/events{query}", **rest)


async def test_a_finished_run_is_shown_with_its_nodes(shop):
    run = await shop.start(json={"payload": {"name": "Ada"}})
    await shop.finish(run, happenings=STEPS)

    view = (await shop.send("GET", f"/api/v1/runs/{run}")).json()

    assert (view["status"], view["attempt"], view["executor"]) == ("succeeded", 1, "inline")
    assert (view["result"], view["error"]) == ({"done": True}, None)
    assert (view["nodes"][0]["status"], view["nodes"][0]["outputs"]) == ("succeeded", {"message": "hello"})
    assert view["created_at"] <= view["started_at"] <= view["finished_at"]


async def test_runs_are_listed_newest_first_page_by_page(shop):
    runs = [await shop.start() for _ in range(5)]

    first = (await shop.send("GET", "/api/v1/runs?limit=3")).json()
    second = (await shop.send("GET", f"/api/v1/runs?limit=3&cursor={first['next_cursor']}")).json()

    listed = [run["run_id"] for run in first["items"] + second["items"]]
    assert sorted(listed) == sorted(runs)
    assert second["next_cursor"] is None


async def test_runs_are_listed_by_status_lane_and_app(shop):
    done, waiting = await shop.start(), await shop.start()
    await shop.finish(done)

    succeeded = (await shop.send("GET", "/api/v1/runs?status=succeeded")).json()["items"]
    queued = (await shop.send("GET", "/api/v1/runs?status=queued&lane=flow&app=shop")).json()["items"]
    webhooks = (await shop.send("GET", "/api/v1/runs?lane=webhook")).json()["items"]

    assert [run["run_id"] for run in succeeded] == [done]
    assert [run["run_id"] for run in queued] == [waiting]
    assert webhooks == []


async def test_a_long_poll_waits_for_news_and_says_when_it_is_over(shop):
    run = await shop.start()
    first = (await events(shop, run)).json()
    polling = asyncio.create_task(events(shop, run, f"?after={first['next_cursor']}&timeout=30"))
    await asyncio.sleep(0)
    await shop.finish(run)

    second = (await polling).json()

    assert [event["type"] for event in first["items"]] == ["run_queued"]
    assert [event["type"] for event in second["items"]] == ["run_started", "run_completed"]
    assert (second["next_cursor"], second["status"]) == (None, "succeeded")


async def test_a_long_poll_without_news_answers_in_time(shop):
    run = await shop.start()

    answer = (await events(shop, run, "?after=1&timeout=0.01")).json()

    assert (answer["items"], answer["next_cursor"], answer["status"]) == ([], 1, "queued")


async def test_a_poll_of_a_run_that_is_over_does_not_wait(shop):
    run = await shop.start()
    await shop.finish(run)

    answer = (await events(shop, run, "?after=3&timeout=50")).json()

    assert (answer["items"], answer["next_cursor"], answer["status"]) == ([], None, "succeeded")


async def test_a_stream_resumes_after_the_last_event_that_was_seen(shop):
    run = await shop.start()
    await shop.finish(run, happenings=STEPS)

    whole = (await events(shop, run, headers=STREAM)).text
    rest = (await events(shop, run, headers={**STREAM, "Last-Event-ID": "3"})).text

    assert [line for line in rest.splitlines() if line.startswith("id:")] == ["id: 4", "id: 5"]
    assert whole.endswith(rest)


async def test_a_browser_that_connects_again_after_the_end_is_told_to_stop(shop):
    run = await shop.start()
    await shop.finish(run)

    answer = await events(shop, run, headers={**STREAM, "Last-Event-ID": "3"})

    assert answer.status_code == 204


async def test_a_poll_token_follows_its_run_and_no_other(shop):
    started = (await shop.send("POST", "/api/v1/apps/shop/events/go/invoke/async")).json()
    other = await shop.start()
    header = {"Authorization": f"Bearer {started['poll_token']}"}

    own = await events(shop, started["run_id"], headers=header)
    in_query = await events(
        shop, started["run_id"], f"?poll_token={started['poll_token']}", headers={"Authorization": ""}
    )
    foreign = await events(shop, other, headers=header)
    elsewhere = await shop.send("GET", f"/api/v1/runs/{started['run_id']}", headers=header)

    assert (own.status_code, in_query.status_code) == (200, 200)
    assert (foreign.status_code, elsewhere.status_code) == (403, 401)


async def test_a_queued_run_is_cancelled_at_once_and_twice_is_once(shop):
    run = await shop.start()

    first = await shop.send("POST", f"/api/v1/runs/{run}/cancel", json={"reason": "not needed"})
    second = await shop.send("POST", f"/api/v1/runs/{run}/cancel")

    view = (await shop.send("GET", f"/api/v1/runs/{run}")).json()
    assert (first.status_code, second.status_code) == (200, 200)
    assert (view["status"], view["error"]["message"]) == ("cancelled", "not needed")


async def test_a_running_run_is_cancelled_by_its_worker(shop):
    run = await shop.start()
    claim = await shop.take(run)

    asked = await shop.send("POST", f"/api/v1/runs/{run}/cancel")
    await shop.spine.writer.record(claim, Cancelled(reason="cancelled on request"), events=[], last_seq=claim.last_seq)

    assert (asked.status_code, asked.json()["status"]) == (202, "running")
    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["status"] == "cancelled"


async def test_one_who_follows_a_run_hears_of_its_cancelling(shop):
    run = await shop.start()
    polling = asyncio.create_task(events(shop, run, "?after=1&timeout=30"))
    await asyncio.sleep(0)

    await shop.send("POST", f"/api/v1/runs/{run}/cancel")

    assert (await polling).json()["status"] == "cancelled"


async def test_a_run_that_is_over_can_be_run_again_as_a_new_one(shop):
    run = await shop.start(json={"payload": {"n": 1}})
    await shop.finish(run)

    answer = await shop.send("POST", f"/api/v1/runs/{run}/retry")

    again = (await shop.send("GET", answer.headers["location"])).json()
    assert answer.status_code == 202
    assert again["run_id"] != run
    assert (again["payload"], again["status"]) == ({"n": 1}, "queued")


async def test_a_run_that_is_not_over_can_not_be_retried(shop):
    run = await shop.start()

    answer = await shop.send("POST", f"/api/v1/runs/{run}/retry")

    assert answer.status_code == 409


async def test_a_dead_letter_is_listed_and_redriven(shop):
    run = await shop.start()
    for _ in range(shop.settings.max_attempts):
        await shop.finish(run, Retry(after=timedelta(0), reason="its worker was lost"))

    dead = (await shop.send("GET", "/api/v1/dead-letters?app=shop")).json()["items"]
    answer = await shop.send("POST", f"/api/v1/dead-letters/{run}/redrive")

    assert [one["run_id"] for one in dead] == [run]
    assert answer.status_code == 202
    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["status"] == "queued"
    assert (await shop.send("GET", "/api/v1/dead-letters")).json()["items"] == []


async def test_only_a_dead_letter_can_be_redriven(shop):
    run = await shop.start()

    answer = await shop.send("POST", f"/api/v1/dead-letters/{run}/redrive")

    assert answer.status_code == 409


@pytest.mark.parametrize("path", ["", "/events"])
async def test_a_run_that_is_not_there_is_not_found(shop, path):
    assert (await shop.send("GET", f"/api/v1/runs/run_nothing{path}")).status_code == 404
