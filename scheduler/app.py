"""The HTTP API: wiring only. A request passes Edge (last catch, figures), BodyLimit, then its route in `routes/`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dispatch.bell import Bell
from dispatch.queues.base import Queue
from scheduler.compat.flowengine import execute as flowengine_execute
from scheduler.compat.flowengine import server as flowengine_server
from scheduler.compat.flowengine import workflows as flowengine_workflows
from scheduler.edge import BodyLimit, Edge
from scheduler.problem import ProblemDocument, install_problems
from scheduler.routes import (
    apps,
    cache,
    dead_letters,
    events,
    execution,
    flows,
    health,
    hooks,
    invoke,
    keys,
    live,
    nodes,
    runs,
    schema,
    secrets,
    waitpoints,
)
from scheduler.routes.docs import inlined
from scheduler.spine import Spine, open_spine
from schemas.settings import Compatibility, Settings

_ABOUT = """Flo runs flows that an API call, a webhook or a schedule starts.

Send `Authorization: Bearer <key>`. Every error is an RFC 9457 problem document. Lists take `limit` and `cursor`."""


def create_app(
    settings: Settings, *, spine: Spine | None = None, queue: Queue | None = None, bell: Bell | None = None
) -> FastAPI:
    """Make the app. It opens its own spine when it starts, unless it is given an open one.

    `queue` and `bell` replace those that the settings name.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if spine is not None:
            app.state.spine = spine
            yield
            return
        async with open_spine(settings, queue=queue, bell=bell) as opened:
            app.state.spine = opened
            yield
            opened.stopping.set()

    app = FastAPI(title="Flo", version="1", description=_ABOUT, lifespan=lifespan, redoc_url=None)
    app.add_middleware(BodyLimit, most=settings.max_body_bytes)
    app.add_middleware(Edge)
    install_problems(app)
    # Routes are tried in this order: the busy ones come first.
    app.router.routes.append(invoke.FastRoute())
    for noun in (
        invoke,
        runs,
        events,
        flows,
        apps,
        dead_letters,
        execution,
        keys,
        secrets,
        nodes,
        schema,
        live,
        waitpoints,
        cache,
    ):
        app.include_router(noun.router, prefix="/api/v1")
    app.include_router(hooks.router)
    app.include_router(health.router)
    if settings.compat_flowengine is not Compatibility.OFF:
        for part in (flowengine_server, flowengine_workflows, flowengine_execute):
            app.include_router(part.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = schema.setdefault("components", {})
        parts.setdefault("schemas", {})["ProblemDocument"] = inlined(ProblemDocument)
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema
