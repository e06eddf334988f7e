"""Puts one worker together, in the order in which things need each other, and takes it apart again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from dispatch.bell import Topic, open_bell
from dispatch.feed import Feed
from dispatch.leases import WorkerIdentity, WorkerLease
from dispatch.queues.celery_app import control_url
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.catalog import load_catalog
from schemas.job import Job
from schemas.npm import NpmAllow
from schemas.settings import ExecutionMode, Settings
from schemas.solo import bounds_of
from workers.dispatcher import Dispatcher
from workers.documents import StoredDocuments
from workers.executors.roster import Holder, Roster
from workers.heartbeat import Heartbeat
from workers.morgue import Morgue
from workers.tenure import Lease

log = structlog.get_logger()


class Assembly:
    """A worker's parts, living on one event loop."""

    dispatcher: Dispatcher
    morgue: Morgue

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
        store = await Store.open(settings.store_url, blob_threshold=settings.blob_threshold_bytes)
        self._closing.append(store.aclose)
        self.morgue = Morgue(store)
        bell = open_bell(control_url(settings), topics=(Topic.CANCEL,))
        self._closing.append(bell.aclose)
        feed = Feed(store, bell)
        writer = RunWriter(
            store,
            on_events=feed.announce,
            on_called=self._call,
            served=identity.lanes,
            patience=timedelta(minutes=10),
        )
        # What this worker reads may have been pushed for another mode: each run is held to its own.
        catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS, npm=NpmAllow.parse("*"), hub=settings.hub)
        lease = Lease(settings.lease)
        holder = Holder(id=identity.id, lease=lease)
        roster = Roster(settings, store, writer, catalog, holder)
        self._closing.append(roster.aclose)
        executors = await roster.open()
        if roster.mode is not None:
            by = "operator" if settings.execution_mode else "what works here"
            log.info("mode.chosen", mode=str(roster.mode), by=by)
        inline_http_cap = timedelta(seconds=settings.inline_http_max_duration)
        self.dispatcher = Dispatcher(
            owner=identity.id,
            writer=writer,
            feed=feed,
            documents=StoredDocuments(
                store,
                catalog,
                max_inline_http=inline_http_cap,
                bounds=bounds_of(settings),
                cluster=settings.k8s_executor_image is not None,
            ),
            executors=executors,
            concurrency=identity.concurrency,
            lease=lease,
        )
        row = WorkerLease(store, identity)
        begun_at = time.monotonic()
        await row.begin(roster.mode)
        lease.renew(begun_at)
        self._closing.append(row.end)
        self._closing.append(writer.settle)
        bell.listen(Topic.CANCEL, lambda run_id: self.dispatcher.cancel(str(run_id), "cancelled on request"))
        heartbeat = Heartbeat(
            store=store, row=row, lease=lease, dispatcher=self.dispatcher, period=settings.heartbeat, owner=identity.id
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
