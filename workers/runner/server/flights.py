"""The attempts that this executor executes, and those that it remembers.

One attempt is executed at most once here, however often it is sent. A newer attempt at a run ends the older one, and
begins when nothing of that is left. An attempt that its worker holds no longer is ended: another may have the run.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from datetime import timedelta

import structlog

from schemas.app import AppLimits
from schemas.errors import FloError, Unavailable
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Retry, RunError
from workers.executors.base import LocalExecutor, RunOrder
from workers.runner.server.clock import Clock
from workers.runner.server.flight import Flight
from workers.runner.server.words import Held, Order
from workers.tenure import Holds

log = structlog.get_logger()

#: How long what is over is remembered, in seconds: who lost the stream asks within a lease, or has lost the run.
REMEMBERED = 60.0
#: Most bytes that are kept of what is over; the oldest goes first.
MOST_KEPT = 256 * 1024 * 1024
#: Seconds between two looks for attempts that nobody holds any more.
_LOOK_EVERY = 0.25
_AGAIN = timedelta(seconds=1)


class Full(FloError):
    """This executor has as many runs as it may have."""


class Fenced(FloError):
    """A newer attempt at this run is here, or its order came when its sender held it no more."""


class SharedTenure:
    """For how long what is started here may act: until workers have let go of all that was here.

    So an executor that was frozen for too long lets nothing out of what it had, whoever sends it something new.
    """

    def __init__(self) -> None:
        self._number = 0
        self.is_over: Callable[[], bool] = lambda: False

    def begin(self) -> Holds:
        """Begin something that may act until the present tenure is over."""
        number = self.look()
        return lambda: self.look() == number

    def look(self) -> int:
        """Give the number of the present tenure; the last one may be found to be over."""
        if self.is_over():
            self._number += 1
        return self._number


class Flights:
    """Up to `capacity` attempts at once."""

    def __init__(
        self,
        executor: LocalExecutor,
        limits: MutableMapping[str, AppLimits],
        tenure: SharedTenure | None = None,
        *,
        capacity: int,
    ) -> None:
        """`limits` is told what each order says that the operator of its app allows."""
        self._executor = executor
        self._limits = limits
        self.clock = Clock()
        self._tenure = tenure or SharedTenure()
        self._tenure.is_over = self._all_let_go
        self.capacity = capacity
        self.running = 0
        self.closing = False
        self._flights: OrderedDict[tuple[str, int], Flight] = OrderedDict()
        self._newest: dict[str, int] = {}
        self._kept = 0
        self._watching = asyncio.create_task(self._watch(), name="what nobody holds")

    def begin(self, order: Order) -> Flight:
        """Execute an attempt, or join it. Raises Full, Fenced or AnotherClock."""
        self._tenure.look()
        held_until = self._until(order.hold_s, order.held_until)
        if held_until is not None and held_until < time.monotonic():
            raise Fenced(f"the order of attempt {order.attempt} of run {order.run_id} comes late: it is held no more")
        key = (order.run_id, order.attempt)
        newest = self._newest.get(order.run_id, 0)
        if order.attempt < newest or (order.attempt == newest and key not in self._flights):
            raise Fenced(f"attempt {newest} of run {order.run_id} was here, or was stopped; {order.attempt} comes late")
        if (flight := self._flights.get(key)) is None:
            if self.closing or self.running >= self.capacity:
                raise Full(f"this executor has {self.running} runs and may have {0 if self.closing else self.capacity}")
            given = order.as_run_order()
            self._limits[order.app] = order.limits
            older = self._flights.get((order.run_id, newest))
            flight = self._flights[key] = Flight(order.run_id, order.attempt, confirms=order.confirms)
            self._newest[order.run_id] = order.attempt
            self.running += 1
            task = asyncio.create_task(self._execute(given, flight, older), name=f"run {order.run_id}")
            flight.begin(task)
            task.add_done_callback(lambda _: self._ended(flight))
        flight.hold(held_until)
        return flight

    def find(self, run_id: str, attempt: int) -> Flight | None:
        return self._flights.get((run_id, attempt))

    def hold(self, held: Held) -> list[tuple[str, int]]:
        """Note what its worker still has; answer what is unknown here, or was let go of: the word may be old."""
        self._tenure.look()
        until = self._until(held.for_s, held.until)
        unknown = []
        for run_id, attempt in held.runs:
            flight = self.find(run_id, attempt)
            if flight is not None and (flight.outcome is not None or not flight.is_let_go()):
                flight.hold(until)
            else:
                unknown.append((run_id, attempt))
        return unknown

    def _until(self, seconds: float | None, told: str | None) -> float | None:
        """Give the time until which something is held; by this clock, if it is told so, and else from now."""
        if told is not None:
            return self.clock.moment(told)
        return None if seconds is None else time.monotonic() + seconds

    async def stop(self, run_id: str, attempt: int) -> Flight | None:
        """End an attempt and return when nothing of it is left; one that is still on its way here will be refused."""
        flight = self.find(run_id, attempt)
        if flight is not None:
            await flight.stop(Cancelled(reason="stopped from outside"))
        elif self._newest.get(run_id, 0) < attempt:
            self._newest[run_id] = attempt
            asyncio.get_running_loop().call_later(REMEMBERED, self._forget_number, run_id, attempt)
        return flight

    async def drain(self, grace: timedelta) -> None:
        """Take nothing more, let what runs finish for up to `grace`, and give the rest back."""
        self.closing = True
        running = [flight for flight in self._flights.values() if flight.outcome is None]
        ends = [asyncio.create_task(flight.over.wait()) for flight in running]
        if ends:
            await asyncio.wait(ends, timeout=grace.total_seconds())
        back = Retry(after=timedelta(0), reason="its executor was stopped")
        await asyncio.gather(*(flight.stop(back) for flight in running))
        await asyncio.gather(*ends)

    async def aclose(self) -> None:
        await self.drain(timedelta(0))
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _execute(self, order: RunOrder, flight: Flight, older: Flight | None) -> Outcome:
        try:
            if older is not None:
                await older.stop(Cancelled(reason=f"attempt {order.attempt} has the run"))
            return await self._executor.run(order, flight)
        except Unavailable as error:
            return Retry(after=_AGAIN, reason=str(error))
        except FloError as error:
            return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=str(error)))
        except Exception as error:  # the edge of a run: it must end, and say how
            log.exception("run.broke", run_id=order.run_id, attempt=order.attempt)
            message = f"Flo itself failed on this run ({type(error).__name__}: {error}); the executor's log has more"
            return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=message))

    def _all_let_go(self) -> bool:
        """Tell whether there is something, and no worker's any more."""
        running = [flight for flight in self._flights.values() if flight.outcome is None]
        return bool(running) and all(flight.is_let_go() for flight in running)

    def _ended(self, flight: Flight) -> None:
        """Keep what is over for a while, unless too much is."""
        self.running -= 1
        self._kept += flight.size
        for key, old in list(self._flights.items()):
            if self._kept <= MOST_KEPT:
                break
            if old.outcome is not None and old is not flight:
                self._forget(key)
        asyncio.get_running_loop().call_later(REMEMBERED, self._forget, (flight.run_id, flight.attempt))

    def _forget(self, key: tuple[str, int]) -> None:
        if (flight := self._flights.pop(key, None)) is not None:
            self._kept -= flight.size
            asyncio.get_running_loop().call_later(REMEMBERED, self._forget_number, *key)

    def _forget_number(self, run_id: str, attempt: int) -> None:
        if self._newest.get(run_id) == attempt and (run_id, attempt) not in self._flights:
            del self._newest[run_id]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for flight in [one for one in self._flights.values() if one.outcome is None and one.is_let_go()]:
                log.warning("run.let_go", run_id=flight.run_id, attempt=flight.attempt, reason="nobody holds it")
                flight.stop_soon(Retry(after=_AGAIN, reason="its worker said no more that it has the run"))
