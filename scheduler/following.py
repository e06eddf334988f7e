"""Follows a run: until it is over, for one long poll, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from starlette.responses import StreamingResponse

from scheduler.spine import Spine
from schemas.json import dumps
from schemas.run import EventType, RunEvent

#: A comment this often keeps proxies from closing a silent stream.
KEEP_ALIVE = timedelta(seconds=15)


def event_stream(spine: Spine, run_id: str, *, after: int = 0) -> StreamingResponse:
    """Answer with the run's events after number `after`, then each new one. Hanging up does not stop the run."""
    return StreamingResponse(
        _frames(spine, run_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Flo-Run-Id": run_id},
    )


async def last_event(spine: Spine, run_id: str, *, timeout: timedelta) -> RunEvent | None:
    """Wait for the run's `run_completed`; None when it does not come in time, or the server stops."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout.total_seconds()
    after = 0
    while (left := deadline - loop.time()) > 0 and not spine.stopping.is_set():
        events = await next_events(spine, run_id, after=after, timeout=timedelta(seconds=left))
        if events:
            after = events[-1].seq
            if is_over(events[-1]):
                return events[-1]
    return None


async def next_events(spine: Spine, run_id: str, *, after: int, timeout: timedelta) -> list[RunEvent]:
    """Wait for events after number `after`; none when the time is up, or the server stops."""
    waiting = asyncio.ensure_future(spine.feed.wait(run_id, after=after, timeout=timeout))
    stopping = asyncio.ensure_future(spine.stopping.wait())
    try:
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else []
    finally:
        waiting.cancel()
        stopping.cancel()


def is_over(event: RunEvent) -> bool:
    return event.happening.type is EventType.RUN_COMPLETED


async def _frames(spine: Spine, run_id: str, after: int) -> AsyncIterator[bytes]:
    while not spine.stopping.is_set():
        events = await next_events(spine, run_id, after=after, timeout=KEEP_ALIVE)
        if not events:
            yield b": still here\n\n"
            continue
        yield b"".join(_frame(event) for event in events)
        if is_over(events[-1]):
            return
        after = events[-1].seq


def _frame(event: RunEvent) -> bytes:
    return f"event: {event.happening.type}\nid: {event.seq}\ndata: {dumps(event.as_json())}\n\n".encode()
