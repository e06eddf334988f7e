"""Every executor that one worker has: made here, with what they share, and closed in the opposite order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dispatch.leases import dead_among
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.catalog import Catalog
from schemas.errors import Unavailable
from schemas.settings import ExecutionMode, ExecutorName, Settings
from workers.app_limits import StoredLimits
from workers.engine.shared import Shared
from workers.executors.awslambda.executor import LambdaExecutor
from workers.executors.base import Executor
from workers.executors.choose import ExecutorChoice
from workers.executors.docker.sweep import Sweeper
from workers.executors.http.executor import HttpExecutor
from workers.executors.http.signing import open_signing
from workers.executors.loan import LoanBook
from workers.executors.modes import ModeExecutor, NamespaceExecutor
from workers.executors.openings import Openings
from workers.shared_in_sql import StoredBreakers, StoredResults
from workers.tenure import Lease

if TYPE_CHECKING:
    from workers.executors.kubernetes.executor import KubernetesExecutor

log = structlog.get_logger()

_HERE = frozenset({ExecutorName.INLINE, ExecutorName.NAMESPACE})
_FUNCTIONS = (ExecutorName.LAMBDA_INVOKE, ExecutorName.LAMBDA_STREAM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The worker that the executors belong to."""

    id: str
    lease: Lease


class Roster:
    """Executors by name. Each opens what it needs when a run first wants it; a worker that executes here, at once."""

    def __init__(self, settings: Settings, store: Store, writer: RunWriter, catalog: Catalog, holder: Holder) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._catalog = catalog
        self._holder = holder
        self._limits = StoredLimits(store)
        self._closing = AsyncExitStack()
        #: The mode of runs that are executed here, once something is open for them.
        self.mode: ExecutionMode | None = None

    async def open(self) -> ExecutorChoice:
        """Raises Unavailable, with the fix, when the default executor lacks something."""
        settings, holder = self._settings, self._holder
        _check_default(settings)
        signing = open_signing(settings, self._store)
        book = LoanBook(self._store, self._writer, self._limits, signing)
        shared = Shared(breakers=StoredBreakers(self._store), results=StoredResults(self._store))
        openings = Openings(
            settings, begin=holder.lease.begin, shared=shared, owner=holder.id, lease_left=holder.lease.left
        )
        self._closing.push_async_callback(openings.aclose)
        modes = ModeExecutor(openings.all(), settings=settings, limits=self._limits, catalog=self._catalog)
        executors: dict[ExecutorName, Executor] = {
            ExecutorName.INLINE: modes,
            ExecutorName.NAMESPACE: NamespaceExecutor(modes),
            ExecutorName.HTTP: HttpExecutor(
                settings, worker=holder.id, limits=self._limits, signing=signing, lease_left=holder.lease.left
            ),
            ExecutorName.DOCKER: openings.docker(self._limits, self._catalog),
            **{name: LambdaExecutor(settings, name=name, limits=self._limits, book=book) for name in _FUNCTIONS},
        }
        if (cluster := self._cluster(book)) is not None:
            executors[ExecutorName.KUBERNETES_JOB] = cluster
            cluster.start()
        choice = ExecutorChoice(executors, default=settings.executor)
        self._closing.push_async_callback(choice.aclose)
        if openings.containers.is_near:
            self._sweep(openings)
        if settings.executor in _HERE:
            self.mode = await modes.start()
        return choice

    async def aclose(self) -> None:
        await self._closing.aclose()

    def _cluster(self, book: LoanBook) -> KubernetesExecutor | None:
        """Give the executor for a cluster, where one is named. Raises Unavailable with what it lacks."""
        settings = self._settings
        if settings.k8s_executor_image is None and settings.executor is not ExecutorName.KUBERNETES_JOB:
            return None
        try:  # the client is an extra
            from workers.executors.kubernetes.opening import open_kubernetes
        except ImportError as error:
            raise Unavailable(
                f"Kubernetes Jobs need the client ({error}); install it: pip install 'flo[k8s]'"
            ) from error
        return open_kubernetes(settings, self._store, limits=self._limits, book=book, owner=self._holder.id)

    def _sweep(self, openings: Openings) -> None:
        lease = self._settings.lease
        sweeper = Sweeper(openings.containers.yard.daemon, partial(dead_among, self._store, lease=lease), every=lease)
        task = asyncio.create_task(sweeper.run(), name="containers of dead workers")
        self._closing.push_async_callback(_end, task)


def _check_default(settings: Settings) -> None:
    """Raise Unavailable where every run would have to be put off, because nothing says where it is to go."""
    lacks = {
        ExecutorName.HTTP: None if settings.executor_url else "EXECUTOR_URL to the executors",
        **dict.fromkeys(
            _FUNCTIONS, None if settings.lambda_function else "LAMBDA_EXECUTOR_FUNCTION to the function's name"
        ),
    }
    if (missing := lacks.get(settings.executor)) is not None:
        raise Unavailable(f"FLO_EXECUTOR={settings.executor} hands runs to nobody: set {missing}")


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
