"""The API on a real database, with in-memory twins of queue and bell, and a hand that plays the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatch.bell import LocalBell
from dispatch.claims import Claim
from dispatch.queues.memory import MemoryQueue
from scheduler.app import create_app
from scheduler.spine import Spine, open_spine
from schemas.outcome import Outcome, Succeeded
from schemas.run import EventType, Happening, RunEvent
from schemas.settings import Settings, load_settings
from tests.making import NO_OP


@dataclass(frozen=True, slots=True)
class Api:
    """A running API and everything a test may want to do to it."""

    client: httpx.AsyncClient
    spine: Spine
    queue: MemoryQueue
    settings: Settings

    async def send(self, method: str, path: str, **rest: Any) -> httpx.Response:
        return await self.client.request(method, path, **rest)

    async def push(self, flow: str = "greet", app: str = "shop", document: Any = None) -> httpx.Response:
        return await self.client.put(f"/api/v1/apps/{app}/flows/{flow}", json=document or NO_OP)

    async def event(self, name: str, kind: str = "invoke", app: str = "shop", **config: Any) -> httpx.Response:
        body = {"kind": kind, "flow": "greet", "config": config}
        return await self.client.put(f"/api/v1/apps/{app}/events/{name}", json=body)

    async def start(self, event: str = "go", **rest: Any) -> str:
        answer = await self.client.post(f"/api/v1/apps/shop/events/{event}/invoke/async", **rest)
        assert answer.status_code == 202, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    async def key(self, *scopes: str, app: str = "shop") -> str:
        answer = await self.client.post("/api/v1/keys", json={"app": app, "scopes": scopes})
        key: str = answer.json()["key"]
        return key

    async def take(self, run_id: str) -> Claim:
        """Claim a run, as a worker does."""
        claim = await self.spine.writer.take(run_id, owner="wrk_test", executor="inline")
        assert claim is not None
        return claim

    async def finish(
        self, run_id: str, outcome: Outcome | None = None, happenings: list[Happening] | None = None
    ) -> None:
        """Execute a run, as a worker does."""
        claim = await self.take(run_id)
        said = [Happening(EventType.RUN_STARTED, {"attempt": 1}), *(happenings or [])]
        events = [RunEvent(run_id, claim.last_seq + 1 + index, one) for index, one in enumerate(said)]
        last_seq = events[-1].seq
        done = outcome or Succeeded(result={"done": True})
        await self.spine.writer.record(claim, done, events=events, last_seq=last_seq)


@pytest.fixture
def settings(database_url: str, home: Path) -> Settings:
    return load_settings({"FLO_HOME": str(home), "FLO_DATABASE_URL": database_url, "FLO_MAX_BODY_BYTES": "100000"})


@pytest.fixture
async def queue() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
async def spine(settings: Settings, queue: MemoryQueue) -> AsyncIterator[Spine]:
    async with open_spine(settings, queue=queue, bell=LocalBell()) as opened:
        yield opened


@pytest.fixture
async def api(settings: Settings, spine: Spine, queue: MemoryQueue) -> AsyncIterator[Api]:
    app = create_app(settings, spine=spine)
    key = (settings.home / "api_key").read_text().strip()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://flo", headers=headers) as client,
    ):
        yield Api(client, spine, queue, settings)


@pytest.fixture
async def shop(api: Api) -> Api:
    """An API with the app `shop`, its flow `greet` and its event `go`."""
    assert (await api.push()).status_code == 201
    assert (await api.event("go")).status_code == 201
    return api
