"""The server itself: health, node types, and the feed of all executions."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response

from scheduler.auth import Scope
from scheduler.broadcast import accept, beginning, broadcast, key_of, refuse
from scheduler.compat.flowengine.door import FlowEngineRoute, enter
from scheduler.compat.flowengine.words import Words
from scheduler.news import News
from scheduler.views import answer
from schemas.errors import FloError

router = APIRouter(route_class=FlowEngineRoute, include_in_schema=False)


@router.get("/health", response_model=None)
async def health() -> Response:
    return answer({"status": "healthy", "version": version("flo"), "service": "flowengine"})


@router.get("/api/nodes", response_model=None)
async def nodes(request: Request) -> Response:
    """List the node types."""
    visit = await enter(request, Scope.READ)
    types = visit.spine.catalog.list()
    return answer([{"type": one.type, "description": one.description, "category": one.category} for one in types])


@router.websocket("/api/events")
async def events(socket: WebSocket) -> None:
    """Send what happens in every execution of the app, in FlowEngine's words."""
    key = key_of(socket)
    await accept(socket)
    try:
        visit = await enter(socket, Scope.READ, key=key)
    except FloError as error:
        await refuse(socket, error)
        return
    news = News(visit.spine.store, app=visit.app, since=beginning(None))
    await broadcast(socket, visit.spine, news, Words().write)
