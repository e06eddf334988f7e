"""Puts the executor together for a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select

from dispatch.leases import Leadership
from dispatch.store.runs import runs
from dispatch.store.session import Store
from schemas.settings import Settings
from workers.app_limits import LimitsOfApps
from workers.executors.kubernetes.cluster import Cluster
from workers.executors.kubernetes.executor import KubernetesExecutor
from workers.executors.kubernetes.keeper import Keeper
from workers.executors.kubernetes.turn import Turn
from workers.executors.loan import LoanBook

#: How long a keeper that dies keeps the others waiting.
_TURN = timedelta(seconds=10)


def open_kubernetes(
    settings: Settings, store: Store, *, limits: LimitsOfApps, book: LoanBook, owner: str
) -> KubernetesExecutor:
    """Make the executor of the worker `owner`; nothing is asked of the cluster before it is needed."""
    cluster = Cluster(settings.kubeconfig, settings.k8s_namespace)

    async def known(run_ids: Sequence[str]) -> set[str]:
        async with store.read() as connection:
            return set((await connection.scalars(select(runs.c.id).where(runs.c.id.in_(run_ids)))).all())

    keeper = Keeper(cluster, book, known, starts_within=timedelta(seconds=settings.k8s_start_seconds))
    leadership = Leadership(store, holder=owner, lasts=_TURN)
    duty = f"k8s.{hashlib.sha256(settings.k8s_namespace.encode()).hexdigest()[:20]}"  # the names of duties are short
    turn = Turn(leadership, duty, keeper.keep, lasts=_TURN)
    return KubernetesExecutor(settings, cluster=cluster, limits=limits, book=book, turn=turn)
