"""The live feed: every event of every run of an app, over one WebSocket."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from sqlalchemy import and_, or_, select
from starlette.websockets import WebSocketState

from dispatch.feed import event_of
from dispatch.store.blobs import unpacked
from dispatch.store.runs import run_events, runs
from scheduler.auth import Scope
from scheduler.spine import Spine, spine_of
from schemas.errors import FloError
from schemas.json import dumps
from schemas.run import RunEvent

router = APIRouter()

#: "Policy violation": the WebSocket word for 401 and 403 (RFC 6455, section 7.4.1).
_REFUSED = 1008
#: "Going away": the server stops.
_STOPPING = 1001

#: Runs asked about in one statement.
_BATCH = 200

#: Runs of which a feed remembers what it has sent.
_REMEMBERED = 10_000


@router.websocket("/events")
async def live(socket: WebSocket, app: str | None = None, key: str | None = None) -> None:
    """Send each event as one JSON text. The key goes into the Authorization header, or from browsers into `?key=`."""
    spine = spine_of(socket)
    await socket.accept()
    try:
        caller = await (spine.gate.admit_key(key) if key is not None else spine.gate.admit(socket))
        app = app or caller.app
        caller.require(Scope.READ, app=app)
    except FloError as error:
        await socket.close(_REFUSED, str(error)[:120])
        return
    news = _News(spine, app)
    ends = [
        asyncio.create_task(_send(socket, news), name="live feed"),
        asyncio.create_task(_hung_up(socket), name="live feed's end"),
        asyncio.create_task(spine.stopping.wait(), name="live feed's stop"),
    ]
    try:
        with spine.ear.listening(news.hear):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ends:
            task.cancel()
    if spine.stopping.is_set() and socket.application_state is WebSocketState.CONNECTED:
        await socket.close(_STOPPING)


class _News:
    """Gathers hints about runs, and reads what is new about them."""

    def __init__(self, spine: Spine, app: str | None) -> None:
        self._spine = spine
        self._app = app
        self._since = datetime.now(UTC)
        self._sent: OrderedDict[str, int] = OrderedDict()
        self._hinted: set[str] = set()
        self._heard = asyncio.Event()

    def hear(self, run_ids: set[str]) -> None:
        self._hinted |= run_ids
        self._heard.set()

    async def next(self) -> Sequence[RunEvent]:
        """Wait for hints, then read the events that they speak of."""
        await self._heard.wait()
        asked = [self._hinted.pop() for _ in range(min(_BATCH, len(self._hinted)))]
        if not self._hinted:
            self._heard.clear()
        new = or_(*(and_(run_events.c.run_id == run, run_events.c.seq > self._sent.get(run, 0)) for run in asked))
        query = (
            select(run_events)
            .join(runs, runs.c.id == run_events.c.run_id)
            .where(new, run_events.c.time >= self._since)
            .order_by(run_events.c.time, run_events.c.seq)
        )
        if self._app is not None:
            query = query.where(runs.c.app == self._app)
        async with self._spine.store.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
            events = [event_of(row) for row in await unpacked(connection, rows)]
        for event in events:
            self._sent[event.run_id] = event.seq
            self._sent.move_to_end(event.run_id)
        while len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)
        return events


async def _send(socket: WebSocket, news: _News) -> None:
    while True:
        for event in await news.next():
            await socket.send_text(dumps(event.as_json()))


async def _hung_up(socket: WebSocket) -> None:
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        return
