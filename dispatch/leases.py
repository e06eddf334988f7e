"""Leases in SQL: a worker's heartbeat, which covers every run it owns, and duties that one replica holds at a time."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import exists, insert, literal_column, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.runs import changed, runs
from dispatch.store.session import Store
from dispatch.store.tables import LeaderRow, WorkerRow
from schemas.errors import NotFound
from schemas.settings import ExecutionMode

workers = cast(SqlTable, WorkerRow.__table__)
leaders = cast(SqlTable, LeaderRow.__table__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """A worker process, from its start to its end; a restarted one is another."""

    id: str
    #: As Celery and Flower name it.
    hostname: str
    lanes: tuple[str, ...]
    concurrency: int


@dataclass(frozen=True, slots=True)
class Owned:
    """A run that SQL says this worker is executing."""

    run_id: str
    attempt: int
    cancel_reason: str | None


class WorkerLease:
    """One worker's row. While it beats, the runs that it owns are its own."""

    def __init__(self, store: Store, identity: WorkerIdentity) -> None:
        self._store = store
        self._identity = identity

    async def begin(self, mode: ExecutionMode | None = None) -> None:
        """Write the worker's row; `mode` is what its runs have unless something else is asked for."""
        now = datetime.now(UTC)
        me = self._identity
        async with self._store.write() as connection:
            await connection.execute(
                insert(workers).values(
                    id=me.id,
                    hostname=me.hostname,
                    pid=os.getpid(),
                    lanes=list(me.lanes),
                    concurrency=me.concurrency,
                    execution_mode=mode,
                    started_at=now,
                    heartbeat_at=now,
                )
            )

    async def beat(self) -> list[Owned]:
        """Renew the lease; answer what SQL says this worker owns, so that it can compare.

        Raises NotFound when SQL knows the worker no more. A reaper that takes its runs has its row locked
        (`silent_owners`): what is answered was read before that, and then nothing is taken, or after it.
        """
        async with self._store.write() as connection:
            renewed = await connection.execute(
                update(workers).where(workers.c.id == self._identity.id).values(heartbeat_at=datetime.now(UTC))
            )
            if not changed(renewed):
                raise NotFound(f"worker {self._identity.id} has no row any more; start it again")
            rows = await connection.execute(
                select(runs.c.id, runs.c.attempt, runs.c.cancel_reason).where(
                    runs.c.owner == self._identity.id, runs.c.status == literal_column("'running'")
                )
            )
            return [Owned(row.id, row.attempt, row.cancel_reason) for row in rows]

    async def end(self) -> None:
        """Give the lease up: whatever is still owned may be taken at once."""
        async with self._store.write() as connection:
            await connection.execute(
                update(workers).where(workers.c.id == self._identity.id).values(stopped_at=datetime.now(UTC))
            )


async def silent_owners(connection: AsyncConnection, *, lease: timedelta) -> list[str]:
    """Name the workers with runs that are taken for dead, and keep each from beating until the transaction's end.

    One that is beating at this moment is not dead.
    """
    is_silent = (workers.c.heartbeat_at < datetime.now(UTC) - lease) | workers.c.stopped_at.is_not(None)
    owns = exists().where(runs.c.owner == workers.c.id, runs.c.status == literal_column("'running'"))
    found = await connection.scalars(select(workers.c.id).where(is_silent, owns).with_for_update(skip_locked=True))
    return list(found)


async def dead_among(store: Store, ids: Collection[str], *, lease: timedelta) -> set[str]:
    """Tell which of these workers are taken for dead: known, and without a heartbeat for a lease, or stopped."""
    alive = (workers.c.heartbeat_at >= datetime.now(UTC) - lease) & workers.c.stopped_at.is_(None)
    async with store.read() as connection:
        rows = await connection.execute(select(workers.c.id, alive).where(workers.c.id.in_(ids)))
        return {worker for worker, is_alive in rows if not is_alive}


class Leadership:
    """One replica's claim to duties. The holder renews; another takes over when it has stopped doing so."""

    def __init__(self, store: Store, *, holder: str, lasts: timedelta) -> None:
        self._store = store
        self._holder = holder
        self._lasts = lasts

    async def hold(self, duty: str) -> bool:
        """Take or renew a duty; False while another replica holds it."""
        now = datetime.now(UTC)
        until = now + self._lasts
        async with self._store.write() as connection:
            mine = await connection.execute(
                update(leaders)
                .where(leaders.c.duty == duty, (leaders.c.holder == self._holder) | (leaders.c.until < now))
                .values(holder=self._holder, until=until)
            )
            if changed(mine):
                return True
            if await connection.scalar(select(leaders.c.duty).where(leaders.c.duty == duty)):
                return False
        try:
            async with self._store.write() as connection:
                await connection.execute(insert(leaders).values(duty=duty, holder=self._holder, until=until))
        except IntegrityError:
            return False
        return True

    async def release(self, duties: Collection[str]) -> None:
        """Give duties up at once, so that a restart need not wait for them."""
        async with self._store.write() as connection:
            await connection.execute(
                update(leaders)
                .where(leaders.c.duty.in_(duties), leaders.c.holder == self._holder)
                .values(until=datetime.now(UTC) - timedelta(seconds=1))
            )
