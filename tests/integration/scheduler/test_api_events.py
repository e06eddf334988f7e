"""Events: made, changed, paused, resumed, fired, removed."""

from __future__ import annotations

from datetime import datetime

GITHUB = {"path": "orders", "verify": {"scheme": "github", "secret": "s3cret"}}


async def test_a_schedule_shows_its_next_times(shop):
    answer = await shop.event("nightly", "schedule", cron="30 2 * * *", timezone="Europe/Berlin")

    view = answer.json()
    assert answer.status_code == 201
    assert view["next_at"] == view["next_times"][0]
    assert len(view["next_times"]) == 5


async def test_a_schedule_saved_again_keeps_its_next_time_and_a_changed_one_gets_another(shop):
    first = (await shop.event("often", "schedule", every="90s")).json()

    same = await shop.event("often", "schedule", every="90s", payload={"a": 1})
    other = await shop.event("often", "schedule", every="2h")

    assert (same.status_code, same.json()["next_at"]) == (200, first["next_at"])
    assert other.json()["next_at"] > first["next_at"]


async def test_an_interval_is_counted_from_the_making_of_the_event(shop):
    view = (await shop.event("often", "schedule", every="11m")).json()

    made, due = (datetime.fromisoformat(view[name]) for name in ("created_at", "next_at"))
    assert (due - made).total_seconds() == 660


async def test_a_paused_schedule_is_due_at_no_time_until_it_is_resumed(shop):
    await shop.event("often", "schedule", every="5m")

    paused = (await shop.send("POST", "/api/v1/apps/shop/events/often/pause")).json()
    changed = (await shop.event("often", "schedule", every="6m")).json()
    resumed = (await shop.send("POST", "/api/v1/apps/shop/events/often/resume")).json()

    assert (paused["paused"], paused["next_at"]) == (True, None)
    assert (changed["paused"], changed["next_at"]) == (True, None)
    assert resumed["paused"] is False
    assert resumed["next_at"] is not None


async def test_a_paused_event_starts_nothing_and_says_how_to_resume_it(shop):
    await shop.send("POST", "/api/v1/apps/shop/events/go/pause")

    answer = await shop.send("POST", "/api/v1/apps/shop/events/go/invoke/async")

    assert answer.status_code == 409
    assert "/api/v1/apps/shop/events/go/resume" in answer.json()["detail"]


async def test_the_secret_of_a_webhook_is_never_shown_or_stored_as_it_is(shop):
    made = await shop.event("orders", "webhook", **GITHUB)

    read = await shop.send("GET", "/api/v1/apps/shop/events/orders")

    assert made.json()["url"] == "http://flo/hooks/shop/orders"
    assert read.json()["config"]["verify"] == {"scheme": "github", "secret": "***"}
    assert "s3cret" not in made.text + read.text
    database = shop.settings.home / "flo.db"
    assert not database.exists() or b"s3cret" not in database.read_bytes()


async def test_a_config_read_and_sent_back_keeps_its_secret(shop):
    shown = (await shop.event("orders", "webhook", **GITHUB)).json()["config"]

    again = await shop.event("orders", "webhook", **shown)

    assert again.status_code == 200


async def test_the_sealed_form_of_a_secret_can_not_be_given(shop):
    answer = await shop.event("orders", "webhook", path="a", verify={"scheme": "github", "sealed": "AAAA"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "config.verify.sealed"


async def test_a_secret_that_is_referred_to_must_be_there(shop):
    refused = await shop.event("orders", "webhook", path="a", verify={"scheme": "github", "secret_ref": "gh"})
    kept = await shop.send("PUT", "/api/v1/apps/shop/secrets/gh", json={"value": "s"})
    made = await shop.event("orders", "webhook", path="a", verify={"scheme": "github", "secret_ref": "gh"})

    assert (refused.status_code, kept.status_code, made.status_code) == (422, 201, 201)
    assert "PUT /api/v1/apps/shop/secrets/gh" in refused.text


async def test_an_event_of_a_flow_that_is_not_there_is_refused(api):
    answer = await api.event("go")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "flow"


async def test_an_event_of_a_version_that_is_not_there_is_refused(shop):
    body = {"kind": "invoke", "flow": "greet", "version": 7}

    answer = await shop.send("PUT", "/api/v1/apps/shop/events/old", json=body)

    assert answer.status_code == 422
    assert "the newest is 1" in answer.text


async def test_an_event_fixed_to_a_version_runs_it_when_there_are_newer_ones(shop):
    await shop.send("PUT", "/api/v1/apps/shop/events/fixed", json={"kind": "invoke", "flow": "greet", "version": 1})
    await shop.push(document={"name": "new", "nodes": [{"id": "x", "node_type": "debug.log"}]})

    fixed, newest = await shop.start("fixed"), await shop.start("go")

    assert (await shop.send("GET", f"/api/v1/runs/{fixed}")).json()["version"] == 1
    assert (await shop.send("GET", f"/api/v1/runs/{newest}")).json()["version"] == 2


async def test_a_removed_event_is_gone_and_its_runs_stay(shop):
    run = await shop.start()

    removed = await shop.send("DELETE", "/api/v1/apps/shop/events/go")

    assert removed.status_code == 204
    assert (await shop.send("GET", "/api/v1/apps/shop/events/go")).status_code == 404
    assert (await shop.send("GET", f"/api/v1/runs/{run}")).json()["event"] == "go"


async def test_a_fired_schedule_runs_on_its_own_lane_with_its_own_payload(shop):
    await shop.event("nightly", "schedule", cron="0 3 * * *", payload={"depth": 2})

    answer = await shop.send("POST", "/api/v1/apps/shop/events/nightly/fire")

    run = (await shop.send("GET", f"/api/v1/runs/{answer.json()['run_id']}")).json()
    assert run["lane"] == "recurring"
    assert run["payload"]["depth"] == 2
    assert "scheduled_for" in run["payload"]


async def test_events_are_listed_by_kind(shop):
    await shop.event("nightly", "schedule", cron="0 3 * * *")

    every = (await shop.send("GET", "/api/v1/apps/shop/events")).json()
    some = (await shop.send("GET", "/api/v1/apps/shop/events?kind=schedule")).json()

    assert [event["event"] for event in every["items"]] == ["go", "nightly"]
    assert [event["event"] for event in some["items"]] == ["nightly"]
