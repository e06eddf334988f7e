"""The worker's heartbeat: renews its lease on everything it executes, and finds out what it no longer holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import and_

from dispatch.leases import Owned, WorkerLease
from dispatch.store.release import lose_runs
from dispatch.store.runs import runs
from dispatch.store.session import Store, is_outage
from workers.dispatcher import LAPSED, Dispatcher
from workers.tenure import Lease

log = structlog.get_logger()


class Heartbeat:
    """Beats every `period`; when the lease runs out all the same, stops every run before others take it."""

    def __init__(
        self,
        *,
        store: Store,
        row: WorkerLease,
        lease: Lease,
        dispatcher: Dispatcher,
        period: timedelta,
        owner: str,
    ) -> None:
        """`row` is the lease as SQL has it, `lease` as this worker knows it."""
        self._store = store
        self._row = row
        self._lease = lease
        self._dispatcher = dispatcher
        self._period = period
        self._owner = owner

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            if not self._lease.tenure.holds():
                # Frozen, or cut off from SQL, for longer than the lease: others may have the runs by now.
                self._dispatcher.lose_all(LAPSED)
            started = time.monotonic()
            self._dispatcher.stop_overdue(started)
            before = self._dispatcher.executing()
            try:
                owned = await self._row.beat()
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("heartbeat.missed", error=(str(error) or repr(error)).splitlines()[0])
            else:
                adrift = self._dispatcher.reconcile(owned, beaten_at=started, before=before)
                await self._release(adrift)
            await asyncio.sleep(max(0.0, started + self._period.total_seconds() - time.monotonic()))

    async def _release(self, adrift: Sequence[Owned]) -> None:
        """Give runs back that SQL gave to this worker, which never heard of it."""
        for one in adrift:
            log.warning("run.adrift", run_id=one.run_id, attempt=one.attempt)
            async with self._store.write() as connection:
                mine = and_(runs.c.id == one.run_id, runs.c.attempt == one.attempt, runs.c.owner == self._owner)
                await lose_runs(connection, mine, reason="the worker lost track of it", most=1)
