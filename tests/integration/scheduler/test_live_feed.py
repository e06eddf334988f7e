"""The live feed over a WebSocket, played by hand on the ASGI interface."""

from __future__ import annotations

import asyncio
import json

import pytest

from scheduler.app import create_app


class Socket:
    """One client of `WS /api/v1/events`."""

    def __init__(self, app, query="", key=""):
        self.incoming: asyncio.Queue[dict] = asyncio.Queue()
        self.outgoing: asyncio.Queue[dict] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": "/api/v1/events",
            "raw_path": b"/api/v1/events",
            "query_string": query.encode(),
            "headers": [(b"authorization", f"Bearer {key}".encode())] if key else [],
            "subprotocols": [],
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
        yield lambda query="", key=admin: Socket(app, query, key)


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
