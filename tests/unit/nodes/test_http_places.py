"""The places of a worker for inline requests: so many on their way at once, and the others wait for their turn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx

from schemas.catalog import load_catalog
from schemas.outcome import ErrorKind, Failed, Outcome, Succeeded
from schemas.run import EventType
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.sink import MemorySink
from workers.nodes.node import NodeTools
from workers.testing import NoCode


@dataclass
class Site:
    """Answers each request when the test lets it, and counts those that are on their way."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    now: int = 0
    most: int = 0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.now += 1
        self.most = max(self.most, self.now)
        self.arrived.release()
        try:
            await self.release.wait()
        finally:
            self.now -= 1
        return httpx.Response(200, json={"path": request.url.path})

    def tools(self, places: int, cap: timedelta = timedelta(minutes=5)) -> NodeTools:
        return NodeTools(
            code=NoCode(), http=httpx.AsyncClient(transport=httpx.MockTransport(self.answer), timeout=None), app="app",
            run_id="run", attempt=1, http_places=asyncio.Semaphore(places), inline_http_cap=cap,
        )  # fmt: skip


async def run(tools: NodeTools, *configs: dict[str, Any], events: MemorySink | None = None) -> Outcome:
    nodes = [
        {"id": f"n{number}", "node_type": "http.request", "config": {"url": f"http://site/{number}", **config}}
        for number, config in enumerate(configs)
    ]
    raw = {"name": "x", "nodes": nodes, "settings": {"max_parallel_nodes": 100}}
    document, _ = read_document(raw, catalog=load_catalog(), max_inline_http=timedelta(minutes=5))
    return await run_flow(document, {}, tools=tools, events=events or MemorySink())


async def test_requests_beyond_the_places_wait_and_are_all_answered() -> None:
    site, events = Site(), MemorySink()
    running = asyncio.create_task(run(site.tools(2), *[{}] * 7, events=events))
    for _ in range(2):
        await site.arrived.acquire()
    site.release.set()

    outcome = await running

    assert isinstance(outcome, Succeeded)
    assert site.most == 2
    waited = [said for said in events.happenings if said.type is EventType.LOG]
    assert len(waited) == 5
    assert "FLO_MAX_INLINE_HTTP" in str(waited[0].data["message"])


async def test_the_wait_for_a_place_is_not_in_a_requests_own_limit() -> None:
    site = Site()
    tools = site.tools(1)
    first = asyncio.create_task(run(tools, {}))
    await site.arrived.acquire()
    second = asyncio.create_task(run(tools, {"timeout_ms": 50}))
    await asyncio.sleep(
        0.1
    )  # longer than the limit of the one that waits: what is to be shown is that it does not count
    site.release.set()

    assert isinstance(await first, Succeeded)
    assert isinstance(await second, Succeeded)


async def test_a_request_that_is_cancelled_while_it_waits_leaves_no_place_taken() -> None:
    site = Site()
    tools = site.tools(1)
    first = asyncio.create_task(run(tools, {}))
    await site.arrived.acquire()
    second = asyncio.create_task(run(tools, {}))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    site.release.set()

    assert isinstance(await first, Succeeded)
    assert isinstance(await run(tools, {}), Succeeded)


async def test_a_cap_that_was_lowered_since_the_push_holds_at_the_start_and_names_the_fix() -> None:
    site = Site()

    outcome = await run(site.tools(1, cap=timedelta(seconds=10)), {"timeout_ms": 60_000})

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.FORBIDDEN
    assert outcome.error.message == (
        'timeout is 60 s, but inline HTTP nodes are capped at 10 s here; set execution_mode: "sandbox" to lift the cap'
    )
    assert site.most == 0
