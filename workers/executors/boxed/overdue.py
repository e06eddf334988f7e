"""The wall clock from outside: what is in a box may have been stopped from keeping its own limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from schemas.outcome import Failed, Outcome
from workers.engine.drive import flow_took_too_long
from workers.executors.base import RunOrder

#: How much longer than the flow's limit its box may take to tell of it.
GRACE = timedelta(seconds=2)


async def in_time(order: RunOrder, run: Awaitable[Outcome]) -> Outcome:
    """Wait for a run until its flow's limit is over, and then stop it."""
    limit = order.document.settings.max_execution_time
    try:
        async with asyncio.timeout((limit + GRACE).total_seconds()) as deadline:
            return await run
    except TimeoutError:
        if not deadline.expired():
            raise
        return Failed(error=flow_took_too_long(limit))
