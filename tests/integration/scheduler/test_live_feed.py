"""The live feed over a WebSocket, played by hand on the ASGI interface."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest

from dispatch.bell import Topic
from scheduler import live, news
from scheduler.app import create_app


class Socket:
    """One client of `WS /api/v1/events`."""

    def __init__(self, app, query="", key="", *, protocols=(), room=0):
        self.incoming: asyncio.Queue[dict] = asyncio.Queue()
        self.outgoing: asyncio.Queue[dict] = asyncio.Queue(room)
        self.incoming.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": "/api/v1/events",
            "raw_path": b"/api/v1/events",
            "query_string": query.encode(),
            "headers": [(b"authorization", f"Bearer {key}".encode())] if key else [],
            "subprotocols": list(protocols),
            "root_path": "",
            "scheme": "ws",
            "server": ("flo", 80),
            "client": ("test", 1),
        }
        self.task = asyncio.create_task(app(scope, self.incoming.get, self.outgoing.put))

    async def next(self):
        return await asyncio.wait_for(self.outgoing.get(), 30)

    async def event(self):
        return json.loads((await self.next())["text"])

    async def hang_up(self):
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(self.task, 30)


@pytest.fixture
async def connect(shop):
    app = create_app(shop.settings, spine=shop.spine)
    admin = (shop.settings.home / "api_key").read_text().strip()
    async with app.router.lifespan_context(app):
        yield lambda query="", key=admin, **rest: Socket(app, query, key, **rest)


async def test_every_event_of_an_app_is_sent_as_it_happens(shop, connect):
    socket = connect("app=shop")
    accepted = await socket.next()
    run = await shop.start()
    await shop.finish(run)

    events = [await socket.event() for _ in range(3)]
    await socket.hang_up()

    assert accepted["type"] == "websocket.accept"
    assert [(event["type"], event["run_id"]) for event in events] == [
        ("run_queued", run),
        ("run_started", run),
        ("run_completed", run),
    ]


async def test_a_feed_of_one_app_says_nothing_of_another(shop, connect):
    await shop.push(app="bank")
    await shop.event("go", app="bank")
    socket = connect("app=bank")
    await socket.next()
    await shop.finish(await shop.start())
    other = (await shop.send("POST", "/api/v1/apps/bank/events/go/invoke/async")).json()["run_id"]
    await shop.finish(other)

    event = await socket.event()
    await socket.hang_up()

    assert event["run_id"] == other


@pytest.mark.parametrize(("query", "key"), [("", ""), ("", "flo_wrong"), ("key=flo_wrong", "")])
async def test_no_valid_key_closes_the_feed(connect, query, key):
    socket = connect(query, key)

    await socket.next()
    closed = await socket.next()

    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


async def test_a_key_of_another_app_closes_the_feed(shop, connect):
    socket = connect("app=shop", await shop.key("read", app="bank"))

    await socket.next()

    assert (await socket.next())["code"] == 1008


async def test_the_feed_ends_when_the_server_stops(shop, connect):
    socket = connect("app=shop")
    await socket.next()

    shop.spine.stopping.set()

    assert (await socket.next())["code"] == 1001


async def test_a_feed_that_hung_up_is_forgotten(shop, connect):
    socket = connect("app=shop")
    await socket.next()

    await socket.hang_up()

    assert not shop.spine.ear._listeners


async def test_a_browser_names_its_key_as_a_subprotocol_and_is_answered_with_the_other(shop, connect):
    socket = connect("app=shop", "", protocols=("flo.events.v1", f"flo.key.{await shop.key('read')}"))
    accepted = await socket.next()
    run = await shop.start()

    event = await socket.event()
    await socket.hang_up()

    assert accepted["subprotocol"] == "flo.events.v1"
    assert (event["run_id"], event["app"], event["flow"]) == (run, "shop", "greet")


async def test_a_feed_that_comes_back_begins_with_what_it_missed(shop, connect):
    first = connect("app=shop")
    await first.next()
    known = await shop.start()
    last = await first.event()
    await first.hang_up()
    await shop.finish(known)
    missed = await shop.start()
    await shop.finish(missed)

    socket = connect(f"app=shop&after={quote(last['time'])}")
    await socket.next()
    events = [await socket.event() for _ in range(6)]
    await socket.hang_up()

    assert [(event["run_id"], event["seq"]) for event in events if event["run_id"] == known][-2:] == [
        (known, 2), (known, 3),
    ]  # fmt: skip
    assert [event["type"] for event in events if event["run_id"] == missed] == [
        "run_queued", "run_started", "run_completed",
    ]  # fmt: skip


@pytest.mark.parametrize(("after", "said"), [("yesterday", "no time"), ("2020-01-01T00:00:00Z", "more than a day ago")])
async def test_a_beginning_that_can_not_be_is_refused_with_the_reason(connect, after, said):
    socket = connect(f"app=shop&after={after}")

    await socket.next()
    closed = await socket.next()

    assert closed["code"] == 1008
    assert said in closed["reason"]


async def test_a_reader_too_far_behind_is_told_so_and_others_are_not_slowed(shop, connect, monkeypatch):
    monkeypatch.setattr(news, "_MOST_BEHIND", 3)
    slow, quick = connect("app=shop", room=1), connect("app=shop")
    await quick.next()  # `slow` takes nothing: its place for one message is full with the first
    run = await shop.start()
    await quick.event()
    await shop.finish(run)
    told = [(await quick.event())["type"] for _ in range(2)]

    shop.spine.bell.ring(Topic.EVENTS, [[f"run_{number}", 1] for number in range(9)])
    ends = [slow.next() for _ in range(3)]
    said = [await end for end in ends]

    assert told == ["run_started", "run_completed"]
    assert (said[-1]["type"], said[-1]["code"]) == ("websocket.close", 1013)
    assert "too slow" in said[-1]["reason"]


async def test_a_run_is_told_of_as_soon_as_it_is_accepted(shop, connect, monkeypatch):
    monkeypatch.setattr(live, "_LOOK_WITH_BELL", 3600)
    socket = connect("app=shop")
    await socket.next()

    run = await shop.start()

    assert (await socket.event())["run_id"] == run


async def test_what_no_hint_told_of_is_found_all_the_same(shop, connect, monkeypatch):
    monkeypatch.setattr(shop.spine.bell, "ring", lambda topic, hint: None)
    monkeypatch.setattr(type(shop.spine.bell), "live", False)
    old = await shop.start()
    socket = connect("app=shop")
    await socket.next()
    new = await shop.start()
    first = {(await socket.event())["run_id"] for _ in range(2)}
    await shop.finish(old)

    rest = [await socket.event() for _ in range(2)]
    await socket.hang_up()

    assert first == {old, new}
    assert [(event["run_id"], event["type"]) for event in rest] == [(old, "run_started"), (old, "run_completed")]
