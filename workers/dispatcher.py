"""A job's life in a worker: claim, execute, record. READ FIRST.

The message only says "look at this run". The claim decides in SQL whether this worker executes it; from then on the
run is held by the worker's heartbeat, and everything written names the attempt, so that a worker that was taken for
dead can write nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import takewhile
from typing import Protocol, cast

import structlog

from dispatch.claims import Claim, LastChance, LostClaim
from dispatch.feed import Feed
from dispatch.leases import Owned
from dispatch.store.session import is_outage
from dispatch.store.writer import RunWriter
from schemas.errors import FloError, Invalid, NotFound, Refused, Unavailable
from schemas.flow import FlowDocument
from schemas.job import Job
from schemas.json import JSONObject
from schemas.outcome import Away, Cancelled, ErrorKind, Failed, Outcome, Retry, RunError
from schemas.run import EventType, Happening, RunStatus
from workers.executors.base import Executor, RunOrder
from workers.executors.solo.pod import pod_run
from workers.linking import link
from workers.run_log import RunLog
from workers.tenure import Holds, Lease

log = structlog.get_logger()

#: Why a worker lets go of its runs before others take them.
LAPSED = "the worker's lease ran out"
#: How much longer than the flow's own limit an executor may take before the dispatcher ends it.
_GRACE = timedelta(seconds=30)
#: Pause before a run whose executor was not to be had is tried again; doubles each time in a row.
_AGAIN = timedelta(seconds=1)
_AGAIN_MOST = timedelta(minutes=1)
#: Pause between two tries to read a run's order from a database that is away.
_LOOK_AGAIN = timedelta(milliseconds=500)
#: How long a run on its last chance waits for those beside it to end. What has run for so long beside it may stay.
_COMPANY = timedelta(seconds=10)
#: How long it then has the worker for itself. What ends its worker mostly does so early; others must get their turn.
_SOLITUDE = timedelta(seconds=15)


class Receipt(Protocol):
    """What the carrier wants to hear about its message."""

    def decided(self, claimed: bool) -> None:
        """The claim is decided: the message has done its work and can be acknowledged."""

    def finished(self, status: RunStatus | None) -> None:
        """The attempt is over; None when it was lost to another worker."""


class _NoMessage:
    """The receipt for a job that no carrier brought."""

    def decided(self, claimed: bool) -> None:
        pass

    def finished(self, status: RunStatus | None) -> None:
        pass


_NO_MESSAGE = _NoMessage()


class Documents(Protocol):
    """Finds flow versions; they never change, so what it finds may be kept."""

    async def read(self, app: str, flow: str, version: int) -> FlowDocument:
        """Raises NotFound."""
        ...

    async def newest(self, app: str, flow: str) -> int:
        """Give a flow's newest version. Raises NotFound, also for a retired flow."""
        ...


class Executors(Protocol):
    """Chooses what a run is handed to."""

    #: The name of what runs without a wish of their own are handed to.
    default: str

    def choose(self, mode: str | None) -> Executor:
        """Raises Unavailable when the wanted one does not work in this worker."""
        ...


@dataclass(slots=True)
class _Held:
    """A run that this worker is executing."""

    claim: Claim
    #: Whether the tenure in which it was claimed goes on.
    holds: Holds
    #: What executes it, while it does; and whether that was told to stop.
    task: asyncio.Task[None] | None = None
    is_cancelled: bool = False
    #: When its executor must have ended it by, by the monotonic clock.
    overdue_at: float = math.inf
    #: Why it was stopped, and what that makes of it; None while nobody stops it.
    stopped: Outcome | LostClaim | None = None

    def stop(self, because: Outcome | LostClaim) -> None:
        if self.stopped is None:
            self.stopped = because
            if self.task is not None:
                self.is_cancelled = self.task.cancel()


class Dispatcher:
    """Executes up to `concurrency` runs at once; further jobs wait here, unclaimed."""

    def __init__(
        self,
        *,
        owner: str,
        writer: RunWriter,
        feed: Feed,
        documents: Documents,
        executors: Executors,
        concurrency: int,
        lease: Lease,
    ) -> None:
        self._owner = owner
        self._writer = writer
        self._feed = feed
        self._documents = documents
        self._executors = executors
        self._lease = lease
        self.concurrency = concurrency
        self._waiting: deque[tuple[Job, Receipt]] = deque()
        self._busy: set[asyncio.Task[None]] = set()
        self._held: dict[str, _Held] = {}
        self._doubtful: set[tuple[str, int]] = set()
        self._apart: deque[tuple[Job, Receipt]] = deque()
        self._soloist: asyncio.Task[None] | None = None
        self._draining = False

    def offer(self, job: Job, receipt: Receipt) -> None:
        """Take a job in; it is claimed as soon as a slot is free."""
        if self._draining:
            return
        self._waiting.append((job, receipt))
        self._fill()

    def call(self, jobs: Sequence[Job]) -> None:
        """Take in runs whose turn came when a run ended here; the relay has them too, should this worker not."""
        for job in jobs:
            self.offer(job, _NO_MESSAGE)

    async def handle(self, job: Job, receipt: Receipt, *, alone: bool = False) -> None:
        """Claim, execute, record."""
        holds = self._lease.begin()  # before it is asked: the answer may come in the next tenure
        try:
            claim = await self._writer.take(
                job.run_id, owner=self._owner, executor=self._executors.default, alone=alone
            )
        except LastChance:
            self._set_apart(job, receipt)
            return
        except BaseException:
            # SQL stayed away: the carrier gets its slot back, and the reaper misses the message.
            receipt.decided(False)
            raise
        receipt.decided(claim is not None)
        if claim is None:
            return  # someone has it, or it is over: the message was only a hint
        status = None
        try:
            with self._holding(claim, holds) as held:
                events = self._open_log(held)
                outcome = await self._execute(held, events)
                status = await self._record(held, outcome, events)
        finally:
            receipt.finished(status)

    def cancel(self, run_id: str, reason: str) -> None:
        """Stop a run that this worker executes; does nothing for others."""
        held = self._held.get(run_id)
        if held is not None:
            held.stop(Cancelled(reason=reason))

    def executing(self) -> frozenset[tuple[str, int]]:
        """Name the runs, and their attempts, that this worker executes."""
        return frozenset((run_id, held.claim.attempt) for run_id, held in self._held.items())

    def reconcile(self, owned: Sequence[Owned], *, beaten_at: float, before: Set[tuple[str, int]]) -> list[Owned]:
        """Compare what SQL says this worker owns with what it was executing `before` the heartbeat.

        Runs that SQL no longer gives it are stopped, and all of them after a heartbeat that came too late; wanted
        cancellations are done. Answers the runs that it owns without executing them, seen twice: a claim whose answer
        was lost on the way. They are to be released.
        """
        if not self._lease.renew(beaten_at):
            self.lose_all(LAPSED)
        mine = {(one.run_id, one.attempt): one for one in owned}
        for run_id, held in list(self._held.items()):
            key = (run_id, held.claim.attempt)
            if key in mine:
                if (reason := mine[key].cancel_reason) is not None:
                    held.stop(Cancelled(reason=reason))
            elif key in before and held.task is not None:
                _abandon(held, "taken away")
        adrift = {(one.run_id, one.attempt) for one in owned if one.run_id not in self._held}
        seen_twice = adrift & self._doubtful
        self._doubtful = adrift - seen_twice
        return [one for one in owned if (one.run_id, one.attempt) in seen_twice]

    def lose_all(self, reason: str) -> None:
        """Stop every run at once without a record: the lease is gone, and others may have them."""
        for held in self._held.values():
            if held.stopped is None:
                _abandon(held, reason)

    def stop_overdue(self, now: float) -> None:
        """Stop the runs whose executor did not keep to their flow's own limit, by the monotonic clock."""
        for held in self._held.values():
            if held.overdue_at < now:
                held.stop(_overdue(held.claim.attempt))

    def stop_taking(self) -> None:
        """Claim nothing more. Jobs that wait here are dropped: their messages are not acknowledged."""
        self._draining = True
        self._waiting.clear()
        self._apart.clear()
        if self._soloist is not None:
            self._soloist.cancel()

    async def drain(self, grace: timedelta) -> None:
        """Take nothing more, let what runs finish for up to `grace`, then give the rest back to the queue."""
        self.stop_taking()
        if self._busy:
            await asyncio.wait(self._busy, timeout=grace.total_seconds())
        for held in self._held.values():
            held.stop(Retry(after=timedelta(0), reason="its worker was stopped"))
        if self._busy:
            await asyncio.wait(self._busy)

    def _fill(self) -> None:
        while self._waiting and len(self._busy) < self.concurrency and not self._draining and self._soloist is None:
            self._start(*self._waiting.popleft())

    def _start(self, job: Job, receipt: Receipt, *, alone: bool = False) -> asyncio.Task[None]:
        task = asyncio.create_task(self.handle(job, receipt, alone=alone), name=job.task_id)
        self._busy.add(task)
        task.add_done_callback(self._done)
        return task

    def _set_apart(self, job: Job, receipt: Receipt) -> None:
        """Put off a run on its last chance until nothing is beside it; unclaimed, should this worker die until then."""
        if self._draining:
            return
        self._apart.append((job, receipt))
        if self._soloist is None:
            self._soloist = asyncio.create_task(self._go_alone(), name="last chances")

    async def _go_alone(self) -> None:
        """Execute what was set apart, one after the other; nothing else is started meanwhile, but not for ever."""
        try:
            while self._apart:
                if self._busy:
                    await asyncio.wait(self._busy, timeout=_COMPANY.total_seconds())
                one = self._start(*self._apart.popleft(), alone=True)
                await asyncio.wait([one], timeout=_SOLITUDE.total_seconds())
        finally:
            self._soloist = None
            self._fill()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # SQL still says that this run is ours: the reaper, or reconcile, brings it back.
            log.error("job.broke", job=task.get_name(), error=repr(error), exc_info=error)
        self._fill()

    @contextlib.contextmanager
    def _holding(self, claim: Claim, holds: Holds) -> Iterator[_Held]:
        held = self._held[claim.run_id] = _Held(claim, holds)
        if not holds():
            held.stop(Retry(after=timedelta(0), reason="its worker's lease had run out when it was claimed"))
        if claim.cancel_reason is not None:
            held.stop(Cancelled(reason=claim.cancel_reason))
        try:
            yield held
        finally:
            del self._held[claim.run_id]

    def _open_log(self, held: _Held) -> RunLog:
        return RunLog(held.claim, self._writer, holds=held.holds, on_lost=partial(_abandon, held))

    async def _execute(self, held: _Held, events: RunLog) -> Outcome | Away | LostClaim:
        """Run one attempt to its end, whatever that end is; raises only when this worker itself is cancelled."""
        if held.stopped is not None:
            return held.stopped
        held.task = task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            outcome = await self._attempt(held, events)
        except asyncio.CancelledError:
            if held.stopped is None or task.cancelling() > held.is_cancelled:
                raise
            return held.stopped
        except LostClaim as lost:
            return held.stopped or lost
        else:
            # Its sandbox may have been ended just because the tenure was over.
            return outcome if held.holds() else held.stopped or LostClaim(held.claim.run_id)
        finally:
            held.task = None  # from here on, there is nothing to stop
            if held.is_cancelled:
                task.uncancel()

    async def _attempt(self, held: _Held, events: RunLog) -> Outcome | Away:
        claim = held.claim
        try:
            executor = self._executors.choose(claim.mode)
            order = await self._order_in_time(claim)
            started: JSONObject = {
                "attempt": claim.attempt,
                "worker": self._owner,
                "executor": claim.mode or self._executors.default,
            }
            events.emit(Happening(EventType.RUN_STARTED, started))
            held.overdue_at = time.monotonic() + (order.document.settings.max_execution_time + _GRACE).total_seconds()
            return await executor.run(order, events)
        except Unavailable as error:
            return Retry(after=_pause(await self._retries(claim)), reason=str(error))
        except Refused as error:
            return Failed(error=RunError(kind=ErrorKind.FORBIDDEN, message=str(error)))
        except FloError as error:
            return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=str(error)))
        except LostClaim:
            raise
        except Exception as error:
            log.exception("run.broke", run_id=claim.run_id, attempt=claim.attempt)
            message = (
                f"Flo itself failed on this run ({type(error).__name__}: {error}); the worker's log has the details"
            )
            return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=message))

    async def _order_in_time(self, claim: Claim) -> RunOrder:
        """Read the order, however long SQL is away: the end of the lease, which is kept there, ends the wait."""
        while True:
            try:
                return await self._order(claim)
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("order.waited", run_id=claim.run_id, error=(str(error) or repr(error)).splitlines()[0])
                await asyncio.sleep(_LOOK_AGAIN.total_seconds())

    async def _order(self, claim: Claim) -> RunOrder:
        try:
            document = await self._documents.read(claim.app, claim.flow, claim.version)
            document = await link(document, self._documents, app=claim.app, flow=claim.flow)
        except NotFound as error:
            raise FloError(str(error)) from error
        except Invalid as error:
            raise FloError(f"version {claim.version} of flow {claim.flow!r} no longer runs here: {error}") from error
        past = await self._feed.read(claim.run_id, limit=1_000_000) if claim.last_seq > 1 else []
        order = RunOrder(
            run_id=claim.run_id,
            app=claim.app,
            flow=claim.flow,
            version=claim.version,
            attempt=claim.attempt,
            document=document,
            payload=claim.payload,
            backend_config=claim.backend_config or {},
            past=[event.happening for event in past],
            event=claim.event,
        )
        return order if claim.node is None else pod_run(order, claim.node)

    async def _retries(self, claim: Claim) -> int:
        """Count how often in a row this run was put off before; attempts lost with their workers do not count."""
        past = await self._feed.read(claim.run_id, limit=1_000_000) if claim.attempt > 1 else []
        queued = [event.happening for event in past if event.happening.type == EventType.RUN_QUEUED]
        return sum(1 for _ in takewhile(lambda said: said.data.get("reason") is not None, reversed(queued)))

    async def _record(self, held: _Held, outcome: Outcome | Away | LostClaim, events: RunLog) -> RunStatus | None:
        """Write the end, fenced by the attempt's number; None when another attempt has the run."""
        if isinstance(outcome, LostClaim):
            return None
        claim = held.claim
        try:
            rest = await events.take_rest()
            status = await self._writer.record(claim, outcome, events=rest, last_seq=events.last_seq)
        except LostClaim:
            log.warning("run.fenced", run_id=claim.run_id, attempt=claim.attempt)
            return None
        log.debug("run.settled", run_id=claim.run_id, attempt=claim.attempt, status=str(status))
        return status


def _abandon(held: _Held, reason: str) -> None:
    log.warning("run.abandoned", run_id=held.claim.run_id, attempt=held.claim.attempt, reason=reason)
    held.stop(LostClaim(held.claim.run_id))


def _pause(retries: int) -> timedelta:
    return min(_AGAIN * (1 << min(retries, 10)), _AGAIN_MOST)


def _overdue(attempt: int) -> Failed:
    message = (
        f"attempt {attempt} did not end {_GRACE.total_seconds():g} s after the flow's own limit and was stopped; "
        "raise settings.max_execution_time_ms if the flow needs longer"
    )
    return Failed(error=RunError(kind=ErrorKind.TIMED_OUT, message=message))
