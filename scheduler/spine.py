"""What every route works with, opened once per process and closed in the opposite order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.requests import HTTPConnection

from dispatch.bell import Bell, open_bell
from dispatch.feed import Feed
from dispatch.outbox import Publisher
from dispatch.queues.base import Queue
from dispatch.queues.celery_app import control_url
from dispatch.queues.choose import open_queue
from dispatch.run_keys import RunKeys
from dispatch.store.keys import server_secret
from dispatch.store.session import Store
from dispatch.store.vault import Vault
from dispatch.store.writer import RunWriter
from dispatch.tokens import PollTokens
from scheduler.auth import Gate, ensure_admin_key
from scheduler.figures import Figures
from scheduler.live import Ear
from scheduler.targets import Targets
from scheduler.webhooks.intake import Intake
from schemas.catalog import Catalog, load_catalog
from schemas.settings import Settings
from schemas.solo import bounds_of

#: How long an accept waits for a database that is away before the caller is told (503).
PATIENCE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spine:
    """The parts of one API or tick process."""

    settings: Settings
    store: Store
    queue: Queue
    bell: Bell
    feed: Feed
    writer: RunWriter
    publisher: Publisher
    catalog: Catalog
    tokens: PollTokens
    vault: Vault
    run_keys: RunKeys
    gate: Gate
    targets: Targets
    intake: Intake
    figures: Figures
    ear: Ear
    #: Set when the process is asked to stop: open streams end, so that it can.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def open_spine(
    settings: Settings, *, queue: Queue | None = None, bell: Bell | None = None
) -> AsyncIterator[Spine]:
    """Open everything; `queue` and `bell` replace those that the settings name, e.g. by in-memory twins.

    Raises Unavailable or SettingsError with the fix.
    """
    async with AsyncExitStack() as closing:
        store = await Store.open(settings.store_url, blob_threshold=settings.blob_threshold_bytes)
        closing.push_async_callback(store.aclose)
        vault = Vault.open(settings.home)
        await ensure_admin_key(store, settings)
        async with store.write() as connection:
            tokens = PollTokens(await server_secret(connection, "poll"))
        queue = queue or open_queue(settings)
        closing.push_async_callback(queue.aclose)
        bell = bell or open_bell(control_url(settings))
        closing.push_async_callback(bell.aclose)
        feed = Feed(store, bell)
        writer = RunWriter(store, on_events=feed.announce, patience=PATIENCE)
        closing.push_async_callback(writer.settle)
        publisher = Publisher(queue, writer)
        closing.push_async_callback(publisher.settle)
        yield Spine(
            settings=settings,
            store=store,
            queue=queue,
            bell=bell,
            feed=feed,
            writer=writer,
            publisher=publisher,
            catalog=load_catalog(settings.mode, npm=settings.npm, hub=settings.hub, solo=bounds_of(settings)),
            tokens=tokens,
            vault=vault,
            run_keys=RunKeys(store, vault),
            gate=Gate(store),
            targets=Targets(store, vault),
            intake=Intake(store),
            figures=Figures(),
            ear=Ear(bell, store),
        )


def spine_of(connection: HTTPConnection) -> Spine:
    """Get the spine of the app that serves this request."""
    spine: Spine = connection.app.state.spine
    return spine
