"""Keys: who may do what, and what those who may not are told."""

from __future__ import annotations

import stat

import pytest

from dispatch.bell import LocalBell
from dispatch.queues.memory import MemoryQueue
from scheduler.spine import open_spine
from schemas.settings import load_settings

READ = "/api/v1/apps/shop/flows"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer flo_guess", "Basic YTpi", "flo_guess", "Bearer a.b.c"])
async def test_no_valid_key_is_401_with_the_way_in(shop, header):
    answer = await shop.send("GET", READ, headers={"Authorization": header})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "key" in answer.json()["detail"]


async def test_a_key_of_an_app_does_what_its_scopes_say(shop):
    key = await shop.key("read")

    read = await shop.send("GET", READ, headers=bearer(key))
    written = await shop.send("DELETE", f"{READ}/greet", headers=bearer(key))
    invoked = await shop.send("POST", "/api/v1/apps/shop/events/go/invoke/async", headers=bearer(key))

    assert (read.status_code, written.status_code, invoked.status_code) == (200, 403, 403)
    assert '"invoke"' in invoked.json()["detail"]


async def test_another_app_looks_the_same_whether_it_exists_or_not(shop):
    await shop.push(app="bank")
    key = await shop.key("read", "write", "invoke")

    there = await shop.send("GET", "/api/v1/apps/bank/flows/greet", headers=bearer(key))
    nowhere = await shop.send("GET", "/api/v1/apps/bunk/flows/greet", headers=bearer(key))

    assert (there.status_code, nowhere.status_code) == (403, 403)
    assert there.json()["detail"].replace("bank", "bunk") == nowhere.json()["detail"]


async def test_a_run_of_another_app_does_not_exist(shop):
    run = await shop.start()
    key = await shop.key("read", "invoke", app="bank")

    answers = [
        await shop.send(method, f"/api/v1/runs/{run}{path}", headers=bearer(key))
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry"))
    ]

    assert [answer.status_code for answer in answers] == [404] * 4


async def test_a_key_of_an_app_lists_only_its_own_runs(shop):
    await shop.start()
    key = await shop.key("read", app="bank")

    own = await shop.send("GET", "/api/v1/runs", headers=bearer(key))
    foreign = await shop.send("GET", "/api/v1/runs?app=shop", headers=bearer(key))

    assert own.json()["items"] == []
    assert foreign.status_code == 403


async def test_a_key_is_shown_once_and_never_again(shop):
    key = await shop.key("read")

    listed = await shop.send("GET", "/api/v1/keys?app=shop")

    assert len(listed.json()["items"]) == 1
    assert key not in listed.text


async def test_a_revoked_key_stops_working(shop):
    key = await shop.key("read")
    assert (await shop.send("GET", READ, headers=bearer(key))).status_code == 200
    key_id = (await shop.send("GET", "/api/v1/keys?app=shop")).json()["items"][0]["id"]

    revoked = await shop.send("DELETE", f"/api/v1/keys/{key_id}")

    assert revoked.status_code == 204
    assert (await shop.send("GET", READ, headers=bearer(key))).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"app": "shop", "scopes": ["admin"]},
        {"scopes": ["read"]},
        {"app": "shop", "scopes": []},
        {"app": "shop", "scopes": ["reed"]},
        {"app": "a b", "scopes": ["read"]},
        {},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(shop, body):
    assert (await shop.send("POST", "/api/v1/keys", json=body)).status_code == 422


async def test_only_an_admin_makes_keys(shop):
    key = await shop.key("read", "write", "invoke")

    answer = await shop.send("POST", "/api/v1/keys", json={"app": "shop", "scopes": ["read"]}, headers=bearer(key))

    assert answer.status_code == 403


async def test_an_admin_key_creates_an_app_by_first_use(api):
    assert (await api.push(app="brand-new")).status_code == 201


async def test_the_first_start_writes_a_key_that_only_its_owner_can_read(api):
    path = api.settings.home / "api_key"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((api.settings.home / "secret_key").stat().st_mode) == 0o600


async def start_again(settings, **environ):
    changed = load_settings({"FLO_HOME": str(settings.home), "FLO_DATABASE_URL": settings.database_url, **environ})
    return open_spine(changed, queue=MemoryQueue(), bell=LocalBell())


async def test_the_key_stays_the_same_at_the_next_start(api):
    key = (api.settings.home / "api_key").read_text().strip()

    async with await start_again(api.settings) as again:
        caller = await again.gate.admit_key(key)

    assert caller.admin


async def test_a_key_from_the_environment_takes_the_place_of_the_one_in_the_home(api):
    async with await start_again(api.settings, FLO_API_KEY="a-key-of-my-own-choosing"):
        pass
    api.spine.gate.forget()

    own = await api.send("GET", "/api/v1/runs", headers=bearer("a-key-of-my-own-choosing"))
    before = await api.send("GET", "/api/v1/runs")

    assert (own.status_code, before.status_code) == (200, 401)


async def test_a_secret_is_kept_and_never_read_back(shop):
    first = await shop.send("PUT", "/api/v1/apps/shop/secrets/token", json={"value": "s3cret"})
    second = await shop.send("PUT", "/api/v1/apps/shop/secrets/token", json={"value": "s3cret2"})
    read = await shop.send("GET", "/api/v1/apps/shop/secrets/token")

    assert (first.status_code, second.status_code, read.status_code) == (201, 200, 405)
    assert "s3cret" not in first.text + second.text
