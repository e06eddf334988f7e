"""Connections that fall silent without an end: each part notices by itself, and goes on over a new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dispatch.bell import RedisBell, Topic
from dispatch.queues.choose import open_queue
from scheduler.reaper import republish_vanished
from scheduler.relay import relay
from schemas.errors import Unavailable
from schemas.job import Job, JobKind
from schemas.settings import load_settings
from tests import servers
from tests.carriers import CREDENTIALS, environment, kafka_environment
from tests.integration.carriers.carried import Carrier, open_carried, until
from tests.integration.workers.worker_process import Lane
from tests.proxies import SilentProxy, open_proxy

pytestmark = pytest.mark.timeout(180)

CARRIERS = ["redis", "sqs", "kafka"]


@dataclass(frozen=True)
class Between:
    """A carrier as the test sees it, and as whoever is behind the proxy does."""

    direct: dict[str, str]
    behind: dict[str, str]
    proxy: SilentProxy


@asynccontextmanager
async def put_between(request: pytest.FixtureRequest, carrier: str, tmp_path: Path) -> AsyncIterator[Between]:
    if carrier == "kafka":
        # A broker names its own address to its clients: this one names the proxy's.
        seen_at = servers.free_port()
        broker = servers.format_kafka(tmp_path, seen_at=seen_at)
        await asyncio.to_thread(broker.start)
        try:
            async with open_proxy(broker.port, port=seen_at) as proxy:
                given = kafka_environment(f"127.0.0.1:{seen_at}")
                yield Between(given, given, proxy)
        finally:
            broker.stop()
        return
    direct = environment(request, carrier)
    name = {"redis": "REDIS_URL", "sqs": "AWS_ENDPOINT_URL"}[carrier]
    port = urlsplit(direct[name]).port
    assert port is not None
    async with open_proxy(port) as proxy:
        yield Between(direct, {**direct, name: direct[name].replace(str(port), str(proxy.port))}, proxy)


@asynccontextmanager
async def scheduler_of(lane: Lane) -> AsyncIterator[None]:
    """Do the scheduler's duties about messages meanwhile."""

    async def duties() -> None:
        while True:
            with suppress(Unavailable):
                await republish_vanished(lane.store, lane.queue)
                await relay(lane.store, lane.queue)
            await asyncio.sleep(0.5)

    task = asyncio.create_task(duties())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(params=CARRIERS)
async def between(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Between]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    async with put_between(request, request.param, tmp_path) as made:
        yield made


async def test_a_worker_whose_connections_fell_silent_consumes_again(
    between: Between, home: Path, database_url: str
) -> None:
    sender = Carrier(home, database_url, between.direct)
    consumer = replace(sender, environment=between.behind)
    async with open_carried(sender) as lane:
        with consumer.worker(REDIS_URL=between.behind["REDIS_URL"]) as worker:
            before = await lane.ended(await lane.send())

            between.proxy.hush()
            # What the broker sends into the silence is gone: the scheduler misses it.
            async with scheduler_of(lane):
                after = [await lane.ended(await lane.send()) for _ in range(3)]

            assert worker.process.poll() is None
    assert [run["status"] for run in (before, *after)] == ["succeeded"] * 4


async def test_a_worker_that_was_cut_off_for_a_while_consumes_again(
    between: Between, home: Path, database_url: str
) -> None:
    sender = Carrier(home, database_url, between.direct)
    consumer = replace(sender, environment=between.behind)
    async with open_carried(sender) as lane:
        with consumer.worker(REDIS_URL=between.behind["REDIS_URL"]) as worker:
            before = await lane.ended(await lane.send())
            made = between.proxy.made

            between.proxy.hush(also_new=True)

            async def it_tried_again() -> bool:
                return between.proxy.made > made

            await until(it_tried_again)
            between.proxy.heal()
            async with scheduler_of(lane):
                after = await lane.ended(await lane.send())

            assert worker.process.poll() is None
    assert [run["status"] for run in (before, after)] == ["succeeded"] * 2


async def test_a_publisher_whose_connection_fell_silent_publishes_again(between: Between) -> None:
    queue = open_queue(load_settings(between.behind))
    await queue.publish([Job(kind=JobKind.FLOW, run_id="run_a", app="shop")])

    between.proxy.hush()

    async def published() -> bool:
        try:
            await queue.publish([Job(kind=JobKind.FLOW, run_id="run_b", app="shop")])
        except Unavailable:
            return False
        return True

    async def counted() -> bool:
        with suppress(Unavailable):
            return await queue.depth("flow") >= 2
        return False

    await until(published)
    # The second call may have been answered on a connection of its own: each finds out by itself.
    await until(counted)
    await queue.aclose()


async def test_a_bell_whose_connection_fell_silent_is_heard_again(redis_url: str) -> None:
    port = urlsplit(redis_url).port
    assert port is not None
    heard: asyncio.Queue[object] = asyncio.Queue()
    rung = RedisBell(redis_url)
    async with open_proxy(port) as proxy:
        bell = RedisBell(redis_url.replace(str(port), str(proxy.port)))
        bell.listen(Topic.CANCEL, heard.put_nowait)

        async def it_rings() -> bool:
            rung.ring(Topic.CANCEL, "run_a")
            return not heard.empty()

        await until(it_rings)
        proxy.hush()
        await asyncio.sleep(0)
        while not heard.empty():
            heard.get_nowait()

        await until(it_rings)

        await bell.aclose()
    await rung.aclose()
