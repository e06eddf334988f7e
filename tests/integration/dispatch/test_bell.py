from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from dispatch.bell import RedisBell, Topic
from schemas.json import JSONValue


async def test_a_process_hears_only_of_the_topics_that_it_asked_for(redis_url: str) -> None:
    heard: asyncio.Queue[JSONValue] = asyncio.Queue()
    bell = RedisBell(redis_url, topics=(Topic.CANCEL,))
    bell.listen(Topic.EVENTS, heard.put_nowait)
    bell.listen(Topic.CANCEL, heard.put_nowait)
    async with asyncio.timeout(30):
        while not heard.qsize():
            bell.ring(Topic.CANCEL, "awake")
            await asyncio.sleep(0.01)

    bell.ring(Topic.EVENTS, "events")
    bell.ring(Topic.CANCEL, "last")

    async with asyncio.timeout(30):
        said = [await heard.get()]
        while said[-1] != "last":
            said.append(await heard.get())
    assert set(said) == {"awake", "last"}
    await bell.aclose()


async def test_a_hint_that_is_no_json_does_not_end_the_listening(redis_url: str) -> None:
    heard: asyncio.Queue[JSONValue] = asyncio.Queue()
    bell = RedisBell(redis_url)
    bell.listen(Topic.CANCEL, heard.put_nowait)
    async with asyncio.timeout(30):
        while not heard.qsize():
            bell.ring(Topic.CANCEL, "awake")
            await asyncio.sleep(0.01)

    async with Redis.from_url(redis_url) as stranger, asyncio.timeout(30):
        await stranger.publish("flo:bell:cancel", b"\xff not json")
        bell.ring(Topic.CANCEL, "run_1")
        while await heard.get() != "run_1":
            pass

    assert bell.live
    await bell.aclose()
