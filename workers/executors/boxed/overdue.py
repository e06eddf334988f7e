"""The wall clock from outside: what is in a box may have been stopped from keeping its own limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import cast

from schemas.outcome import Failed, Outcome
from workers.engine.drive import flow_took_too_long
from workers.executors.base import RunOrder

#: How much longer than the flow's limit its box may take to tell of it.
GRACE = timedelta(seconds=2)


async def in_time(order: RunOrder, run: Awaitable[Outcome]) -> Outcome:
    """Wait for a run until its flow's limit is over, and then stop it."""
    limit = order.document.settings.max_execution_time
    task = cast("asyncio.Task[object]", asyncio.current_task())
    asked = task.cancelling()
    is_late = False

    def stop() -> None:
        nonlocal is_late
        is_late = True
        task.cancel()

    # As `asyncio.timeout` does it, at a third of its price: every run comes by here.
    timer = asyncio.get_running_loop().call_later((limit + GRACE).total_seconds(), stop)
    try:
        return await run
    except asyncio.CancelledError:
        if not is_late or task.uncancel() > asked:  # somebody else wants it to stop, too
            raise
        return Failed(error=flow_took_too_long(limit))
    finally:
        timer.cancel()
