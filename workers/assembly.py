"""Puts one worker together, in the order in which things need each other, and takes it apart again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

import httpx
import structlog

from dispatch.bell import Topic, open_bell
from dispatch.feed import Feed
from dispatch.leases import WorkerIdentity, WorkerLease
from dispatch.queues.celery_app import control_url
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.catalog import load_catalog
from schemas.errors import SettingsError
from schemas.job import Job
from schemas.settings import ExecutionMode, ExecutorName, Settings
from workers.dispatcher import Dispatcher
from workers.documents import StoredDocuments
from workers.engine.registry import HubRegistry
from workers.executors.base import RunOrder
from workers.executors.choose import ExecutorChoice
from workers.executors.inline import InlineExecutor
from workers.heartbeat import Heartbeat
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.preparation.preparer import CachingPreparer, Preparer
from workers.sandboxes.v8 import V8Pool

log = structlog.get_logger()


class Assembly:
    """A worker's parts, living on one event loop."""

    dispatcher: Dispatcher

    def __init__(self, settings: Settings, identity: WorkerIdentity) -> None:
        self._settings = settings
        self._identity = identity
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open everything. Raises FloError, with the fix, for whatever is missing; what was opened is closed again."""
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise

    async def aclose(self, drain: timedelta) -> None:
        """Let runs finish for up to `drain`, give the rest back, close everything."""
        await self.dispatcher.drain(drain)
        await self._close()

    async def _open(self) -> None:
        settings, identity = self._settings, self._identity
        _check_mode(settings)
        store = await Store.open(settings.store_url)
        self._closing.append(store.aclose)
        bell = open_bell(control_url(settings))
        self._closing.append(bell.aclose)
        feed = Feed(store, bell)
        writer = RunWriter(
            store,
            on_events=feed.announce,
            on_called=self._call,
            served=identity.lanes,
            patience=timedelta(minutes=10),
        )
        code = V8Pool(hosts=settings.v8_hosts)
        await code.start()
        self._closing.append(code.aclose)
        preparer = CachingPreparer.open(settings)
        self._closing.append(preparer.aclose)
        http = open_client(allow_private_network=settings.allow_private_network)
        self._closing.append(http.aclose)
        inline_http_cap = timedelta(seconds=settings.inline_http_max_duration)
        tools_for = partial(_tools, code, preparer, http, inline_http_cap)
        inline = InlineExecutor(tools_for, registry=HubRegistry(settings.hub))
        catalog = load_catalog(settings.execution_mode, npm=settings.npm, hub=settings.hub)
        self.dispatcher = Dispatcher(
            owner=identity.id,
            writer=writer,
            feed=feed,
            documents=StoredDocuments(store, catalog, max_inline_http=inline_http_cap),
            executors=ExecutorChoice({ExecutorName.INLINE: inline}, default=settings.executor),
            concurrency=identity.concurrency,
            lease=settings.lease,
        )
        lease = WorkerLease(store, identity)
        await lease.begin()
        self._closing.append(lease.end)
        self._closing.append(writer.settle)
        bell.listen(Topic.CANCEL, lambda run_id: self.dispatcher.cancel(str(run_id), "cancelled on request"))
        heartbeat = Heartbeat(
            store=store, lease=lease, dispatcher=self.dispatcher, period=settings.heartbeat, owner=identity.id
        )
        self._beating = asyncio.create_task(heartbeat.run(), name="heartbeat")
        self._beating.add_done_callback(self._heart_stopped)

    def _call(self, jobs: Sequence[Job]) -> None:
        self.dispatcher.call(jobs)

    def _heart_stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # Without a heartbeat this worker counts as dead: stop its runs, and end, so that it is started again.
            log.critical("heartbeat.broke", error=repr(error), exc_info=error)
            self.dispatcher.stop_taking()
            self.dispatcher.lose_all("the heartbeat broke")
            os.kill(os.getpid(), signal.SIGTERM)

    async def _close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beating
        while self._closing:
            await self._closing.pop()()


def _tools(
    code: V8Pool, preparer: Preparer, http: httpx.AsyncClient, inline_http_cap: timedelta, order: RunOrder
) -> NodeTools:
    return NodeTools(
        code=code,
        http=http,
        app=order.app,
        run_id=order.run_id,
        attempt=order.attempt,
        inline_http_cap=inline_http_cap,
        preparer=preparer,
    )


def _check_mode(settings: Settings) -> None:
    """Refuse to promise a sandbox that this worker does not have."""
    if settings.execution_mode is not ExecutionMode.SANDBOX_CODE_ONLY:
        raise SettingsError(
            f"FLO_EXECUTION_MODE is {settings.execution_mode}, but workers run only SANDBOX_CODE_ONLY so far; unset it"
        )
