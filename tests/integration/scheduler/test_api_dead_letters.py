"""Dead letters: runs that were given up and messages that were unreadable, listed, redriven and discarded."""

from __future__ import annotations

from datetime import timedelta

from dispatch.store.dead_messages import DeadMessage, keep_message
from schemas.outcome import Retry

DEAD = "/api/v1/dead-letters"


async def die(shop, **rest):
    """Start a run, and lose every attempt at it."""
    run = await shop.start(**rest)
    for _ in range(shop.settings.max_attempts):
        await shop.finish(run, Retry(after=timedelta(0), reason="its worker burnt"))
    return run


async def keep(shop, body=b"not json", lane="flow"):
    message = DeadMessage(carrier="redis", lane=lane, body=body, reason="not a job")
    async with shop.spine.store.write() as connection:
        await keep_message(connection, message)
    return message.id


async def listed(shop, query=""):
    return (await shop.send("GET", f"{DEAD}{query}")).json()


async def test_a_dead_run_is_listed_with_every_attempt(shop):
    run = await die(shop)

    (item,) = (await listed(shop))["items"]

    assert (item["kind"], item["run_id"], item["status"]) == ("run", run, "dead")
    assert [one["attempt"] for one in item["attempts"]] == [1, 2, 3]
    assert {one["reason"] for one in item["attempts"][:2]} == {"its worker burnt"}
    assert "its worker burnt" in item["error"]["message"]


async def test_unreadable_messages_are_listed_after_the_runs_page_by_page(shop):
    run = await die(shop)
    messages = sorted([await keep(shop, b"not json"), await keep(shop, b"\xff\x00")])

    first = await listed(shop, "?limit=1")
    second = await listed(shop, f"?limit=1&cursor={first['next_cursor']}")
    third = await listed(shop, f"?limit=1&cursor={second['next_cursor']}")

    assert [item["run_id"] for item in first["items"]] == [run]
    assert [second["items"][0]["id"], third["items"][0]["id"]] == messages
    assert third["next_cursor"] is None


async def test_a_page_may_hold_both(shop):
    await die(shop)
    await keep(shop)

    page = await listed(shop)

    assert [item["kind"] for item in page["items"]] == ["run", "message"]
    assert page["next_cursor"] is None


async def test_a_message_is_shown_as_it_came(shop):
    await keep(shop, b"\xff\x00")
    await keep(shop, b"hello")

    items = (await listed(shop, "?kind=message"))["items"]

    shown = {(item["body"], item["encoding"], item["size"], item["reason"]) for item in items}
    assert shown == {("/wA=", "base64", 2, "not a job"), ("hello", "text", 5, "not a job")}


async def test_a_message_that_comes_twice_is_kept_once(shop):
    assert await keep(shop) == await keep(shop)

    assert len((await listed(shop))["items"]) == 1


async def test_a_key_of_an_app_sees_no_messages(shop):
    await keep(shop)
    headers = {"Authorization": f"Bearer {await shop.key('read')}"}

    runs = await shop.send("GET", DEAD, headers=headers)
    messages = await shop.send("GET", f"{DEAD}?kind=message", headers=headers)

    assert runs.json()["items"] == []
    assert messages.status_code == 403


async def test_a_message_can_be_discarded(shop):
    message = await keep(shop)

    first = await shop.send("DELETE", f"{DEAD}/{message}")
    second = await shop.send("DELETE", f"{DEAD}/{message}")

    assert (first.status_code, second.status_code) == (204, 404)
    assert (await listed(shop))["items"] == []


async def test_all_dead_runs_are_redriven_at_once(shop):
    several = [await die(shop) for _ in range(3)]

    answer = await shop.send("POST", f"{DEAD}/redrive")

    assert (answer.status_code, answer.json()) == (202, {"redriven": 3, "more": False})
    for run in several:
        await shop.finish(run)
    assert (await listed(shop))["items"] == []


async def test_only_the_runs_of_a_flow_are_redriven(shop):
    await die(shop)

    other = await shop.send("POST", f"{DEAD}/redrive?flow=other")
    same = await shop.send("POST", f"{DEAD}/redrive?flow=greet&app=shop")

    assert (other.json()["redriven"], same.json()["redriven"]) == (0, 1)


async def test_a_key_redrives_the_runs_of_its_own_app_only(shop):
    await die(shop)
    await shop.push(app="bank")
    headers = {"Authorization": f"Bearer {await shop.key('invoke', app='bank')}"}

    own = await shop.send("POST", f"{DEAD}/redrive", headers=headers)
    others = await shop.send("POST", f"{DEAD}/redrive?app=shop", headers=headers)

    assert own.json()["redriven"] == 0
    assert others.status_code == 403
