"""A pool of Node hosts, each working on many runs at once.

A host that dies takes no innocent run with it. Where it is known which run was at fault (it ran out of memory, or
would not stop at its deadline), that one is told so and the others start again. Where it is not known, every run that
was in the host is a suspect. Suspects start again together, away from all others; if their host dies too, each starts
again alone, and the one that still kills its host is guilty.

So it is for code that has no effect but its result and its logs. Of other code (`HostProgram.repeats` is False) nothing
ever starts twice: what was in a host that died is lost, and told so.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from itertools import chain, count, repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from schemas import json
from schemas.errors import FloError, Unavailable
from workers.sandboxes.base import CodeOrder, CodeOutcome, OnLog
from workers.sandboxes.node.host import NodeHost
from workers.sandboxes.node.jail import Jail, NoJail
from workers.sandboxes.node.outcome import lost, memory_exceeded, outcome_of, timed_out
from workers.sandboxes.node.program import HostProgram
from workers.sandboxes.node.seat import SPARE_MB, Death, Flight, Seat, Ward, judge
from workers.sandboxes.node.setup import find_node

#: Runs that one host works on at once; most wait for a timer or a core.
SLOTS = 32
#: After its deadline a run gets this long to leave its host before the host is killed.
GRACE = timedelta(seconds=2)
#: How often deadlines and memory are looked at.
WATCH_EVERY = timedelta(milliseconds=100)
#: Pauses between tries to replace a host that does not start; the last is repeated.
BACKOFF = (0.1, 0.5, 2.0, 5.0)


class NodePool:
    """Runs code in Node hosts. Use it as an async context manager, in one event loop."""

    def __init__(
        self,
        program: HostProgram,
        *,
        hosts: int = 0,
        node: Path | None = None,
        slots: int = SLOTS,
        grace: timedelta = GRACE,
        jail: Jail | None = None,
        hints: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a pool of `hosts` processes (0: one per core), each in `jail`, which is closed with the pool.

        `hints` say what to do about a global that is not there.
        """
        self._program = program
        self._wanted = hosts or len(os.sched_getaffinity(0))
        self._node = node
        self._slots = slots
        self._grace = grace.total_seconds()
        self._jail: Jail = jail or NoJail()
        self._hints = hints or {}
        self._seats: list[Seat] = []
        #: Hosts on their way.
        self._opening: dict[asyncio.Task[None], Ward] = {}
        self._queues: dict[Ward, deque[Flight]] = {ward: deque() for ward in Ward}
        self._ids = count(1)
        self._watch: asyncio.Task[None] | None = None
        self._busy = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Start every host at once; raise Unavailable with the fix if Node or what the program needs is missing."""
        if self._node is None:
            self._node = find_node()
        try:
            opened = await asyncio.gather(
                *(self._open(Ward.EVERYONE) for _ in range(self._wanted)), return_exceptions=True
            )
            for problem in opened:
                if problem is not None:
                    raise problem
        except BaseException:
            await self.aclose()
            raise
        self._watch = asyncio.create_task(self._keep_watch(), name="node-watch")

    async def aclose(self) -> None:
        """Kill every host and return when all are confirmed dead; runs under way end as lost."""
        tasks = [*self._opening, *([self._watch] if self._watch else [])]
        self._watch = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        seats, self._seats = self._seats, []
        queued = chain.from_iterable(self._queues.values())
        for flight in chain(queued, *(seat.flights.values() for seat in seats)):
            flight.settle(lost(f"The {self._program.name} pool was closed while this code was running"))
        await asyncio.gather(*(seat.host.aclose() for seat in seats))
        await self._jail.aclose()

    @property
    def pids(self) -> list[int]:
        """List the processes of the live hosts."""
        return [seat.host.pid for seat in self._seats]

    def resident_mb(self) -> float:
        """Read how much memory the live hosts have together, in MB."""
        return sum(seat.host.resident_mb() for seat in self._seats)

    @property
    def jail(self) -> str:
        """Name what stands around the hosts; empty for nothing."""
        return self._jail.name

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        """Run the code; never raises for what the code does. Cancelling the task kills it."""
        if self._watch is None:
            raise Unavailable(f"The {self._program.name} pool is not started, or already closed")
        outcome: asyncio.Future[CodeOutcome] = asyncio.get_running_loop().create_future()
        number = next(self._ids)
        flight = Flight(id=number, order=order, line=_order_line(number, order), on_log=on_log, outcome=outcome)
        self._queues[Ward.EVERYONE].append(flight)
        self._dispatch()
        try:
            return await outcome
        except BaseException:
            self._stop(flight)
            raise

    # Runs --------------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give waiting runs to the hosts of their ward, and see that suspects have hosts as long as there are any."""
        for ward, queue in self._queues.items():
            slots = 1 if ward is Ward.ALONE else self._slots
            while queue:
                free = [s for s in self._seats if s.ward is ward and not s.closing and len(s.flights) < slots]
                if not free:
                    break
                # Of those with the fewest, the one that has rested longest: it has had time to make isolates ready.
                self._put(queue.popleft(), min(free, key=lambda seat: (len(seat.flights), seat.used)))
            if ward is not Ward.EVERYONE:
                self._fit_hosts(ward, len(queue))

    def _fit_hosts(self, ward: Ward, waiting: int) -> None:
        """Open and close hosts for suspects as needed, as many as there are for everyone at most."""
        here = [seat for seat in self._seats if seat.ward is ward and not seat.closing]
        if waiting:
            coming = sum(each is ward for each in self._opening.values())
            needed = waiting if ward is Ward.ALONE else 1
            for _ in range(min(needed, self._wanted - len(here)) - coming):
                self._open_later(ward)
            return
        for seat in here:
            if not seat.flights:
                seat.closing = True
                seat.host.kill()

    def _put(self, flight: Flight, seat: Seat) -> None:
        if flight.outcome.done():
            return
        flight.starts += 1
        flight.logs_seen = 0
        flight.overdue_at = _now() + flight.order.timeout.total_seconds() + self._grace
        seat.used = flight.id
        seat.flights[flight.id] = flight
        seat.host.send(flight.line)
        self._busy.set()

    def _stop(self, flight: Flight) -> None:
        """Stop a run that nobody waits for any more; its host is killed if it does not obey."""
        for seat in self._seats:
            if flight.id in seat.flights:
                flight.overdue_at = _now() + self._grace
                seat.host.send(orjson.dumps({"type": "cancel", "id": flight.id}) + b"\n")

    def _heard(self, host: NodeHost, message: dict[str, Any]) -> None:
        seat = self._seat_of(host)
        flight = seat.flights.get(message["id"]) if seat is not None else None
        if seat is None or flight is None:
            return
        match message["type"]:
            case "log":
                flight.log(message["level"], message["text"])
            case "late":
                flight.settle(timed_out(flight.order))
            case "done":
                if not flight.outcome.done():
                    flight.settle(outcome_of(flight.order, message, self._hints))
                self._leave(flight, seat)
            case "fatal":
                flight.settle(memory_exceeded(flight.order))
                self._close_later(seat)
                self._leave(flight, seat)

    def _leave(self, flight: Flight, seat: Seat) -> None:
        del seat.flights[flight.id]
        if seat.closing and not seat.flights:
            seat.host.kill()
        self._dispatch()

    # Hosts -------------------------------------------------------------------------------------------------------

    async def _open(self, ward: Ward) -> None:
        assert self._node is not None
        host = NodeHost(on_message=self._heard, on_death=self._buried)
        await host.start(self._program, jail=self._jail, node=self._node)
        self._seats.append(Seat(host=host, ward=ward, repeats=self._program.repeats))

    def _open_later(self, ward: Ward) -> None:
        task = asyncio.create_task(self._keep_opening(ward), name="node-open")
        self._opening[task] = ward
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        del self._opening[task]
        if not task.cancelled():
            self._dispatch()

    async def _keep_opening(self, ward: Ward) -> None:
        """Open a host, however often that takes; while its ward has none at all, fail what waits with the reason."""
        for pause in chain(BACKOFF, repeat(BACKOFF[-1])):
            try:
                await self._open(ward)
            except FloError as problem:
                if not any(seat.ward is ward and not seat.closing for seat in self._seats):
                    for flight in self._queues[ward]:
                        flight.settle(lost(str(problem)))
                await asyncio.sleep(pause)
            else:
                return

    def _close_later(self, seat: Seat) -> None:
        """Give a host no more runs, and open another in its place."""
        if not seat.closing:
            seat.closing = True
            if seat.ward is Ward.EVERYONE and self._watch is not None:
                self._open_later(Ward.EVERYONE)

    def _buried(self, host: NodeHost) -> None:
        """A host is confirmed dead: replace it, and see to the runs that were in it."""
        seat = self._seat_of(host)
        if seat is None:
            return
        self._seats.remove(seat)
        self._close_later(seat)
        verdict = judge(seat)
        for flight, outcome in verdict.guilty:
            flight.settle(outcome)
        for flight, flight.ward in reversed(verdict.again):
            self._queues[flight.ward].appendleft(flight)
        self._dispatch()

    def _seat_of(self, host: NodeHost) -> Seat | None:
        return next((seat for seat in self._seats if seat.host is host), None)

    # The watch ---------------------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        """Kill hosts that do not let go of a run in time or grow too big; retire those that stay big."""
        while True:
            await self._busy.wait()
            await asyncio.sleep(WATCH_EVERY.total_seconds())
            for seat in [seat for seat in self._seats if seat.flights]:
                overdue = [flight for flight in seat.flights.values() if flight.overdue_at < _now()]
                size, allowed = seat.host.resident_mb(), seat.memory_allowed_mb()
                if overdue:
                    self._give_up(overdue)
                    self._kill(seat, Death.STUCK if all(f.outcome.done() for f in overdue) else Death.HUNG)
                elif size > allowed:
                    self._kill(seat, Death.TOO_BIG)
                elif size > allowed - SPARE_MB / 2:
                    self._close_later(seat)
            if not any(seat.flights for seat in self._seats):
                self._busy.clear()

    def _give_up(self, overdue: list[Flight]) -> None:
        """Where nothing starts twice, a run that is past its deadline is late, whoever held it up."""
        if not self._program.repeats:
            for flight in overdue:
                flight.settle(timed_out(flight.order))

    def _kill(self, seat: Seat, why: Death) -> None:
        self._close_later(seat)
        seat.kill(why)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _order_line(number: int, order: CodeOrder) -> bytes:
    message = {
        "type": "run",
        "id": number,
        "source": order.source,
        "filename": order.filename,
        "inputs": json.dumps(order.inputs),
        "timeout_ms": order.timeout / timedelta(milliseconds=1),
        "memory_mb": order.memory_mb,
        "max_output_bytes": order.max_output_bytes,
    }
    return json.to_bytes(message) + b"\n"
