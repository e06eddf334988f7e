"""Puts one worker together, in the order in which things need each other, and takes it apart again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dispatch.bell import Topic, open_bell
from dispatch.feed import Feed
from dispatch.leases import WorkerIdentity, WorkerLease, dead_among
from dispatch.queues.celery_app import control_url
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.catalog import load_catalog
from schemas.errors import Unavailable
from schemas.job import Job
from schemas.npm import NpmAllow
from schemas.settings import ExecutionMode, ExecutorName, Settings
from workers.app_limits import LimitsOfApps, StoredLimits
from workers.dispatcher import Dispatcher
from workers.documents import StoredDocuments
from workers.engine.shared import Shared
from workers.executors.awslambda.executor import LambdaExecutor
from workers.executors.choose import ExecutorChoice
from workers.executors.docker.sweep import Sweeper
from workers.executors.http.executor import HttpExecutor
from workers.executors.http.signing import open_signing
from workers.executors.loan import LoanBook
from workers.executors.modes import ModeExecutor, NamespaceExecutor
from workers.executors.openings import Openings
from workers.heartbeat import Heartbeat
from workers.morgue import Morgue
from workers.shared_in_sql import StoredBreakers, StoredResults

if TYPE_CHECKING:
    from workers.executors.kubernetes.executor import KubernetesExecutor

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
        shared = Shared(breakers=StoredBreakers(store), results=StoredResults(store))
        openings = Openings(
            settings, holds=self._lease_holds, shared=shared, owner=identity.id, lease_left=self._lease_left
        )
        self._closing.append(openings.aclose)
        # What this worker reads may have been pushed for another mode: each run is held to its own.
        catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS, npm=NpmAllow.parse("*"), hub=settings.hub)
        limits = StoredLimits(store)
        modes = ModeExecutor(openings.all(), settings=settings, limits=limits, catalog=catalog)
        self._closing.append(modes.aclose)
        signing = open_signing(settings, store)
        http = HttpExecutor(settings, worker=identity.id, limits=limits, signing=signing, lease_left=self._lease_left)
        self._closing.append(http.aclose)
        docker = openings.docker(limits, catalog)
        self._closing.append(docker.aclose)
        if openings.containers.is_near:
            sweeper = Sweeper(
                openings.containers.yard.daemon, partial(dead_among, store, lease=settings.lease), every=settings.lease
            )
            self._closing.append(_ended(asyncio.create_task(sweeper.run(), name="containers of dead workers")))
        book = LoanBook(store, writer, limits, signing)
        functions = {
            name: LambdaExecutor(settings, name=name, limits=limits, book=book)
            for name in (ExecutorName.LAMBDA_INVOKE, ExecutorName.LAMBDA_STREAM)
        }
        self._closing.extend(one.aclose for one in functions.values())
        kubernetes = self._kubernetes(store, book, limits)
        mode = await modes.start()
        log.info("mode.chosen", mode=str(mode), by="operator" if settings.execution_mode else "what works here")
        inline_http_cap = timedelta(seconds=settings.inline_http_max_duration)
        self.dispatcher = Dispatcher(
            owner=identity.id,
            writer=writer,
            feed=feed,
            documents=StoredDocuments(store, catalog, max_inline_http=inline_http_cap),
            executors=ExecutorChoice(
                {
                    ExecutorName.INLINE: modes,
                    ExecutorName.NAMESPACE: NamespaceExecutor(modes),
                    ExecutorName.HTTP: http,
                    ExecutorName.DOCKER: docker,
                    **functions,
                    **kubernetes,
                },
                default=settings.executor,
            ),
            concurrency=identity.concurrency,
            lease=settings.lease,
        )
        lease = WorkerLease(store, identity)
        await lease.begin(mode)
        self._closing.append(lease.end)
        self._closing.append(writer.settle)
        for cluster in kubernetes.values():
            self._closing.append(cluster.aclose)
            cluster.start()
        bell.listen(Topic.CANCEL, lambda run_id: self.dispatcher.cancel(str(run_id), "cancelled on request"))
        heartbeat = Heartbeat(
            store=store, lease=lease, dispatcher=self.dispatcher, period=settings.heartbeat, owner=identity.id
        )
        self._beating = asyncio.create_task(heartbeat.run(), name="heartbeat")
        self._beating.add_done_callback(self._heart_stopped)

    def _kubernetes(self, store: Store, book: LoanBook, limits: LimitsOfApps) -> dict[ExecutorName, KubernetesExecutor]:
        """Give the executor for a cluster, where one is named. Raises Unavailable with what it lacks."""
        settings = self._settings
        if settings.k8s_executor_image is None and settings.executor is not ExecutorName.KUBERNETES_JOB:
            return {}
        try:  # the client is an extra
            from workers.executors.kubernetes.opening import open_kubernetes
        except ImportError as error:
            raise Unavailable(
                f"Kubernetes Jobs need the client ({error}); install it: pip install 'flo[k8s]'"
            ) from error
        opened = open_kubernetes(settings, store, limits=limits, book=book, owner=self._identity.id)
        return {ExecutorName.KUBERNETES_JOB: opened}

    def _call(self, jobs: Sequence[Job]) -> None:
        self.dispatcher.call(jobs)

    def _lease_holds(self) -> bool:
        # What is opened before the dispatcher asks only once there are runs.
        return self.dispatcher.lease_holds()

    def _lease_left(self) -> timedelta:
        return self.dispatcher.lease_left()

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


def _ended(task: asyncio.Task[None]) -> Callable[[], Awaitable[None]]:
    """Give what ends a task that goes on for ever."""

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    return end
