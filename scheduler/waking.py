"""Sends parked runs on whose time has come, or whose child runs are over; and stops children that nobody waits for.

All of it is read from SQL: whatever died meanwhile, the next look finds what there is to do.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import structlog

from dispatch.bell import Bell, Topic
from dispatch.store.release import request_cancels
from dispatch.store.session import Store
from dispatch.store.waitpoints import Closed, answer, ended_children, orphans, wake_due
from schemas.errors import Conflict
from schemas.run import RunStatus

log = structlog.get_logger()

#: Rows in one transaction.
_BATCH = 200


async def wake(store: Store, bell: Bell, *, now: datetime | None = None) -> int:
    """Queue what can go on; answer how many runs that were. The relay publishes them."""
    now = now or datetime.now(UTC)
    woken = await _whose_time_has_come(store, now) + await _whose_children_are_over(store, now)
    if woken:
        log.debug("run.woken", runs=len(woken))
        bell.ring(Topic.EVENTS, [[run_id, 0] for run_id in woken])
    await _stop_orphans(store, bell, now)
    return len(woken)


async def _whose_time_has_come(store: Store, now: datetime) -> list[str]:
    woken: list[str] = []
    while True:
        batch = await store.transact(partial(wake_due, now=now, most=_BATCH))
        woken += batch
        if len(batch) < _BATCH:
            return woken


async def _whose_children_are_over(store: Store, now: datetime) -> list[str]:
    async with store.read() as connection:
        ended = await connection.run_sync(partial(ended_children, now=now, most=_BATCH))
    told = []
    for waitpoint, said in ended:
        try:
            work = partial(answer, waitpoint=waitpoint, said=said, reason="the run that it called is over")
            run_id, _ = await store.transact(work)
        except (Conflict, Closed):  # another replica was quicker, or the caller is over
            continue
        told.append(run_id)
    return told


async def _stop_orphans(store: Store, bell: Bell, now: datetime) -> None:
    async with store.read() as connection:
        ids = await connection.run_sync(partial(orphans, now=now, most=_BATCH))
    if not ids:
        return
    async with store.write() as connection:
        statuses = await request_cancels(connection, ids, "the run that called it waits for it no longer")
    for run_id, status in statuses.items():
        if status is RunStatus.RUNNING:
            bell.ring(Topic.CANCEL, run_id)
    bell.ring(Topic.EVENTS, [[run_id, 0] for run_id in statuses])
