"""An app's limits: the operator's to see and change, and held at once."""

from __future__ import annotations

import pytest

LIMITS = "/api/v1/apps/shop/limits"


async def test_an_app_without_limits_shows_the_defaults(shop):
    limits = (await shop.send("GET", LIMITS)).json()

    assert (limits["max_concurrency"], limits["key_concurrency"], limits["rate_limit"]) == (None, 1, None)


async def test_what_is_put_is_shown(shop):
    given = {"max_concurrency": 5, "rate_limit": {"runs": 10, "per_seconds": 60}, "egress": ["api.example.org"]}

    put = await shop.send("PUT", LIMITS, json=given)

    assert put.status_code == 200
    shown = (await shop.send("GET", LIMITS)).json()
    assert shown == put.json()
    assert {name: shown[name] for name in given} == given


async def test_limits_may_be_put_before_the_app_is_used(api):
    assert (await api.send("PUT", LIMITS, json={"max_concurrency": 1})).status_code == 200
    assert (await api.send("GET", LIMITS)).json()["max_concurrency"] == 1


async def test_an_unknown_app_has_no_limits(api):
    answer = await api.send("GET", LIMITS)

    assert answer.status_code == 404
    assert 'no app "shop"' in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"max_concurency": 5}, "max_concurency"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"rate_limit": {"runs": 1}}, "rate_limit.per_seconds"),
        ({"modes": ["inline", "dokcer"]}, "modes[1]"),
    ],
)
async def test_a_wrong_limit_is_refused_with_its_place(shop, body, path):
    answer = await shop.send("PUT", LIMITS, json=body)

    assert answer.status_code == 422
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]


async def test_only_an_admin_may_see_or_change_them(shop):
    key = await shop.key("read", "write", "invoke")
    headers = {"Authorization": f"Bearer {key}"}

    answers = [await shop.send(method, LIMITS, json={}, headers=headers) for method in ("GET", "PUT")]

    assert [answer.status_code for answer in answers] == [403, 403]


async def test_a_mode_that_the_limits_name_may_be_asked_for_at_once(shop):
    refused = await shop.send("POST", "/api/v1/apps/shop/events/go/invoke/async", json={"mode": "docker"})
    await shop.send("PUT", LIMITS, json={"modes": ["docker"]})

    allowed = await shop.send("POST", "/api/v1/apps/shop/events/go/invoke/async", json={"mode": "docker"})

    assert (refused.status_code, allowed.status_code) == (403, 202)


async def test_a_run_in_line_says_for_what_it_waits_and_only_then(shop):
    await shop.send("PUT", LIMITS, json={"max_concurrency": 1})
    first, second = await shop.start(), await shop.start()
    claim = await shop.take(first)
    assert await shop.spine.writer.take(second, owner="wrk_test", executor="inline") is None

    waiting = (await shop.send("GET", f"/api/v1/runs/{second}")).json()
    await shop.send("PUT", LIMITS, json={})
    await shop.finish(second)

    assert claim.run_id == first
    assert (waiting["status"], waiting["waiting_for"]) == ("queued", "one of the app's 1 places")
    assert "waiting_for" not in (await shop.send("GET", f"/api/v1/runs/{second}")).json()
