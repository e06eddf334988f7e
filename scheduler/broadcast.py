"""One live feed over one WebSocket: who may listen, from where on, and how it ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from scheduler.auth import bearer_of
from scheduler.news import LONGEST_BACK, News, Told
from scheduler.spine import Spine
from schemas.errors import FloError, Invalid, Problem
from schemas.wording import short

#: What a client speaks when it names it: browsers can send no header, but name what they speak, and so their key.
SUBPROTOCOL = "flo.events.v1"
_KEY = "flo.key."

#: "Policy violation": the WebSocket word for 401, 403 and 422 (RFC 6455, section 7.4.1).
_REFUSED = 1008
#: What a close frame has room for, in bytes (RFC 6455, section 5.5: 125, two of them the code).
_LONGEST_REASON = 123
#: "Going away": the server stops.
_STOPPING = 1001
#: "Try again later" (IANA's registry of WebSocket close codes).
_TOO_SLOW = 1013
_TOO_SLOW_SAYS = "too slow: connect again with ?after= the time of the last event"

#: Seconds that one message may wait for its reader; others wait for no one.
_PATIENCE = 30.0
#: Seconds that a reader who takes nothing is given to take the word that it was too slow.
_LAST_WORD = 1.0
#: A feed repeats this much of what was before: clocks differ, and events of one moment are committed one by one.
_OVERLAP = timedelta(seconds=2)

_QUERY_KEY = re.compile(rb"((?:^|&)key=)[^&]*")


async def accept(socket: WebSocket) -> None:
    """Accept the connection, in the words that the client offered; what it sent as a key stays out of every log."""
    socket.scope["query_string"] = _QUERY_KEY.sub(rb"\1***", socket.scope["query_string"])
    offered = socket.scope.get("subprotocols", ())
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)


def key_of(socket: WebSocket) -> str | None:
    """Read the key of who listens: from the Authorization header, `?key=`, or the subprotocol `flo.key.<key>`."""
    offered = socket.scope.get("subprotocols", ())
    told = [one.removeprefix(_KEY) for one in offered if one.startswith(_KEY)]
    return bearer_of(socket) or parse_qs(socket.scope["query_string"].decode("latin-1")).get("key", told or [None])[0]


async def refuse(socket: WebSocket, error: FloError) -> None:
    """Close with the reason. Browsers show a page no refusal of the handshake, so this comes after it."""
    await socket.close(_REFUSED, str(error).encode()[:_LONGEST_REASON].decode(errors="ignore"))


def beginning(after: str | None) -> datetime:
    """Tell from when on a feed speaks: a little before now, or before `after`, the time of an event. Raises Invalid."""
    now = datetime.now(UTC)
    if after is None:
        return now - _OVERLAP
    try:
        moment = datetime.fromisoformat(after.replace(" ", "+"))  # an unescaped + of the offset arrives as a space
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _wrong(f"given {short(after)}, which is no time with its offset", "give the `time` of an event")
    if moment < now - LONGEST_BACK:
        raise _wrong("this is more than a day ago", "read GET /api/v1/runs for what was before")
    return moment - _OVERLAP


async def broadcast(
    socket: WebSocket, spine: Spine, news: News, write: Callable[[Told], str | None], *, replay: bool = False
) -> None:
    """Send the news as `write` words it (None leaves an event out), until someone ends it or it is too slow."""
    stop = asyncio.create_task(spine.stopping.wait(), name="live feed's stop")
    overrun = asyncio.create_task(news.overrun.wait(), name="live feed's overrun")
    sending = asyncio.create_task(_send(socket, news, write, replay=replay), name="live feed")
    ends = [stop, overrun, sending, asyncio.create_task(_hung_up(socket), name="live feed's end")]
    try:
        async with spine.ear.listening(news.hear):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ends:
            task.cancel()
        await asyncio.wait(ends)
    if socket.application_state is not WebSocketState.CONNECTED:
        return
    if spine.stopping.is_set():
        await _close(socket, _STOPPING, "the server stops; connect again")
    elif news.overrun.is_set():
        await _close(socket, _TOO_SLOW, _TOO_SLOW_SAYS)
    elif not sending.cancelled():
        sending.result()  # what it broke with


async def _send(socket: WebSocket, news: News, write: Callable[[Told], str | None], *, replay: bool) -> None:
    if replay:
        await news.begin()
    while True:
        for told in await news.next():
            text = write(told)
            if text is None:
                continue
            try:
                async with asyncio.timeout(_PATIENCE):
                    await socket.send_text(text)
            except TimeoutError:
                news.overrun.set()
                return
            except WebSocketDisconnect:
                return


async def _hung_up(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        continue


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(_LAST_WORD):
            await socket.close(code, reason)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        return  # it takes nothing any more; the server drops the connection with this function's end


def _wrong(message: str, fix: str) -> Invalid:
    return Invalid([Problem(path="after", message=message, fix=fix)], what="query")
