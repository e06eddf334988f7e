"""A process of its own for each node that runs alone: where boxes don't work, and nothing around a run is a box."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from schemas.json import JSONObject, dumps
from schemas.settings import Settings
from workers.executors.boxed.desk import Services
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.supply import Kind
from workers.executors.boxed.terms import Terms
from workers.sandboxes.box.base import ProgramOrder, ignore_output
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.plain import open_plain


@asynccontextmanager
async def open_processes(
    settings: Settings, platform: Literal["v8", "node"], terms: Terms, services: Services
) -> AsyncIterator[Callable[[Kind], Awaitable[EngineBox]]]:
    """Open what starts such processes, and ends them with all that they have started, also when this one dies."""
    place = await open_plain()
    try:
        yield partial(_make, place, settings, platform, terms, services)
    finally:
        await place.aclose()


async def _make(  # noqa: PLR0917 - bound by open_processes
    place: NamespaceBox,
    settings: Settings,
    platform: Literal["v8", "node"],
    terms: Terms,
    services: Services,
    kind: Kind,
) -> EngineBox:
    given: JSONObject = {
        "platform": platform,
        "hub": str(settings.hub),
        "with_code": kind.with_code,
        "allow_private_network": settings.allow_private_network,
        "http_places": terms.http_places,
        "custom": services.operators.described() if services.operators is not None else [],
    }
    argv = (sys.executable, "-P", "-m", "workers.runner.alone", dumps(given))
    order = ProgramOrder(app="engine", argv=argv, limits=kind.limits(terms.limits()), egress=kind.egress)
    holds = services.begin()
    return await EngineBox.start(await place.start(order, ignore_output), services, kind.egress, holds)
