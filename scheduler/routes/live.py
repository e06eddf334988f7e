"""The live feed: every event of every run of an app, over one WebSocket."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from scheduler.auth import Scope
from scheduler.broadcast import accept, beginning, broadcast, key_of, refuse
from scheduler.news import News, Told
from scheduler.spine import spine_of
from schemas.errors import FloError
from schemas.json import dumps

router = APIRouter()


@router.websocket("/events")
async def live(socket: WebSocket, app: str | None = None, after: str | None = None) -> None:
    """Send each event as one JSON text: as the runs' own events, with their `app` and `flow`.

    `after`, the time of an event, begins with what followed it. An admin's feed without `app` has every app's events.
    """
    spine = spine_of(socket)
    key = key_of(socket)
    await accept(socket)
    try:
        caller = await spine.gate.admit_key(key)
        app = app or caller.app
        caller.require(Scope.READ, app=app)
        news = News(spine.store, app=app, since=beginning(after))
    except FloError as error:
        await refuse(socket, error)
        return
    await broadcast(socket, spine, news, _write, replay=after is not None)


def _write(told: Told) -> str:
    return dumps({**told.event.as_json(), "app": told.app, "flow": told.flow})
