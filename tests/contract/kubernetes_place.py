"""The executor that makes Jobs, opened for the contract suite, with an API for them to call back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from away_place import Followed, serving_api
from executor_places import Limits, Place

from tests.k8s_double.orders import RESOURCES
from workers.executors.base import RunOrder
from workers.executors.kubernetes.opening import open_kubernetes


@asynccontextmanager
async def opened_kubernetes(home: Path, cluster: Mapping[str, str]) -> AsyncIterator[Place]:
    """Open it; `cluster` are the variables that name one."""
    limits = Limits()
    async with serving_api(home, limits, **cluster) as api:
        executor = open_kubernetes(api.settings, api.store, limits=limits, book=api.book, owner="wrk_test")
        executor.start()
        try:
            yield Place(Followed(executor, api, prepared=with_resources), limits)
        finally:
            await executor.aclose()


def with_resources(order: RunOrder) -> RunOrder:
    """Say what the run takes of a node, as it must there."""
    return replace(order, backend_config={"resources": RESOURCES, **order.backend_config})
