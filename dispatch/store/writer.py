"""Every write to a run by a busy process, coalesced: one transaction per batch, one statement per kind.

Accepts, claims, events and results that are asked for in the same instant share a transaction, and so its commit
(`batch.py`). A batch that fails is tried again one operation at a time, so that a bad one spoils no other; while the
database is away, operations wait for it instead of failing, up to `patience`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from dispatch.claims import Claim
from dispatch.coalesce import Coalescer
from dispatch.store.batch import Accept, Accepted, Append, Operation, Published, Record, Take, write_batch
from dispatch.store.runs import NewRun
from dispatch.store.session import Store, is_outage
from schemas.errors import Unavailable
from schemas.job import Job
from schemas.outcome import Away, Outcome
from schemas.run import RunEvent, RunStatus

log = structlog.get_logger()

#: Operations in one transaction: enough to drown the cost of a commit, few enough to keep it in milliseconds.
_BATCH = 200
_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(seconds=2)


class RunWriter:
    """One process's pen. Once they are committed, `on_events` hears of events, and `on_called` of runs in line whose
    turn has come, in lanes that this process serves (`served`).
    """

    def __init__(
        self,
        store: Store,
        *,
        on_events: Callable[[Sequence[RunEvent]], None] = lambda events: None,
        on_called: Callable[[Sequence[Job]], None] = lambda jobs: None,
        served: Collection[str] = (),
        patience: timedelta = timedelta(seconds=30),
    ) -> None:
        self._store = store
        self._on_events = on_events
        self._on_called = on_called
        self._served = frozenset(served)
        self._patience = patience
        self._operations: Coalescer[Operation, Any] = Coalescer(self._write, most=_BATCH)

    async def accept(self, new: NewRun, *, tracked_only: bool = False) -> Accepted:
        """Write a run and its outbox row; once this returns, the run will not be lost.

        Idempotent by `idempotency_key`. Raises Conflict when the key came with another request before.
        """
        accepted: Accepted = await self._operations.submit(Accept(new, tracked_only))
        return accepted

    async def published(self, jobs: Sequence[Job]) -> None:
        """Note that the broker has these jobs."""
        await self._operations.submit(Published(jobs))

    async def take(self, run_id: str, *, owner: str, executor: str, alone: bool = False) -> Claim | None:
        """Claim a queued run: the only place where one becomes `running`. None when it is not to be had.

        One that its app's limits hold back stays queued, in line, and is called when its turn comes (`line.py`).
        `alone` says that the owner executes nothing else. Raises LastChance for a run that needs that.
        """
        claim: Claim | None = await self._operations.submit(Take(run_id, owner, executor, alone))
        return claim

    async def append(self, claim: Claim, events: Sequence[RunEvent], *, repeated: bool = False) -> None:
        """Make events durable, in order; `repeated` ones are left out where their number is taken.

        Raises LostClaim when the attempt is no longer the run's newest.
        """
        await self._operations.submit(Append(claim, events, repeated))

    async def record(
        self, claim: Claim, outcome: Outcome | Away, *, events: Sequence[RunEvent], last_seq: int | None
    ) -> RunStatus:
        """Write the end of an attempt with its last events, in one transaction; answer what the run became.

        `last_seq` is the number of the newest event so far, `events` included; None is whatever SQL says it is, without
        `events`. A Retry queues the run again, or dead-letters it after its last attempt; with Away it stays running,
        and has no worker. Raises LostClaim like `append`.
        """
        status: RunStatus = await self._operations.submit(Record(claim, events, outcome, last_seq))
        return status

    async def settle(self) -> None:
        """Wait until everything asked for has been written."""
        await self._operations.settle()

    async def _write(self, operations: Sequence[Operation], *, again: bool = False) -> Sequence[Any]:
        deadline = asyncio.get_running_loop().time() + self._patience.total_seconds()
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._transact(operations, again=again)
            except Exception as error:
                if not is_outage(error):
                    if len(operations) == 1:
                        return [error]
                    return [answer for one in operations for answer in await self._write([one], again=again)]
                if asyncio.get_running_loop().time() >= deadline:
                    log.error("store.gave_up", error=str(error), operations=len(operations))
                    raise Unavailable(
                        f"the database did not answer for {self._patience.total_seconds():g} s"
                    ) from error
                # Some errors have no words: a time-out's is its name alone.
                reason = (str(error) or repr(error)).splitlines()[0]
                log.warning("store.waited", error=reason, operations=len(operations))
                await asyncio.sleep(pause.total_seconds())
                pause = min(pause * 2, _LONGEST_PAUSE)
                again = True

    async def _transact(self, operations: Sequence[Operation], *, again: bool) -> Sequence[Any]:
        work = partial(write_batch, operations=operations, again=again, served=self._served)
        written = await self._store.transact(work)
        if written.events:
            self._on_events(written.events)
        if written.called:
            self._on_called(written.called)
        return written.answers
