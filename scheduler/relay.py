"""Publishes what is due in the outbox: jobs left behind by a crash, jobs with a `run_at`, pauses between attempts."""

from __future__ import annotations

from datetime import datetime

import structlog

from dispatch.outbox import RELAY_BATCH, relay_due
from dispatch.queues.base import Queue
from dispatch.store.session import Store

log = structlog.get_logger()


async def relay(store: Store, queue: Queue, *, now: datetime | None = None) -> int:
    """Send everything that is due now; answer how many. Raises Unavailable when the broker is away."""
    sent = 0
    while True:
        batch = await relay_due(store, queue, now=now)
        sent += batch
        if batch < RELAY_BATCH:
            break
    if sent:
        log.debug("relay.sent", jobs=sent)
    return sent
