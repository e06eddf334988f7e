"""The V8 sandbox: a pool of Node hosts, each running many isolates, and a fresh isolate for every run.

A host that dies takes no innocent run with it. Where it is known which run was at fault (its isolate ran out of
memory, or would not stop at its deadline), that one is told so and the others start again. Where it is not known,
every run that was in the host is a suspect and starts again alone, in a host of its own: the one that kills its host
once more is guilty. Code has no effect but its result and its logs, so running it again is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from schemas import json
from schemas.errors import FloError, Unavailable
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, OnLog
from workers.sandboxes.v8_host import Launch, V8Host
from workers.sandboxes.v8_outcome import internal_error, lost, memory_exceeded, outcome_of, timed_out
from workers.sandboxes.v8_setup import HOST_FOLDER, check_isolated_vm, die_with_parent, find_node

#: Runs that one host works on at once.
SLOTS = 32
#: Ready isolates that a host keeps for each memory limit.
STOCK = 4
#: Memory limit for which isolates are made before the first run asks.
WARM_MEMORY_MB = 128
#: After its deadline a run gets this long to stop before its host is killed.
GRACE = timedelta(seconds=2)
#: How often deadlines and memory are looked at.
WATCH_EVERY = timedelta(milliseconds=100)
#: Times that a run is started before it is called lost.
MAX_STARTS = 4
#: Resident memory that a host may have beyond what its runs may use.
SPARE_MB = 512
#: Pauses between tries to replace a host that does not start.
BACKOFF = (0.1, 0.5, 2.0, 5.0)


@dataclass(slots=True, eq=False, kw_only=True)
class _Flight:
    """A run on its way through the pool."""

    id: int
    order: CodeOrder
    line: bytes
    on_log: OnLog
    outcome: asyncio.Future[CodeOutcome]
    starts: int = 0
    #: Was in a host that died for a reason unknown: runs alone from now on.
    suspect: bool = False
    overdue_at: float = 0.0
    #: Log lines of this start, and of all starts, so that a second start repeats none.
    logs_seen: int = 0
    logs_forwarded: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class _Seat:
    """A host and what runs in it."""

    host: V8Host
    alone: bool
    flights: dict[int, _Flight] = field(default_factory=dict)
    #: The last run it was given.
    used: int = 0
    #: Takes no more runs, and is killed when those it has are over.
    closing: bool = False
    #: The fault of the run in it is known to be memory.
    too_big: bool = False


class V8Pool:
    """Runs code in V8 isolates. Use it as an async context manager, in one event loop."""

    def __init__(
        self,
        *,
        hosts: int = 0,
        node: Path | None = None,
        slots: int = SLOTS,
        stock: int = STOCK,
        warm_memory_mb: int = WARM_MEMORY_MB,
        grace: timedelta = GRACE,
        launch: Launch | None = None,
        folder: Path = HOST_FOLDER,
    ) -> None:
        self._wanted = hosts or len(os.sched_getaffinity(0))
        self._node = node
        self._slots = slots
        self._settings = {"stock": stock, "warm_memory_mb": warm_memory_mb}
        self._grace = grace.total_seconds()
        self._launch = launch or _launch_with_parent
        self._folder = folder
        self._seats: list[_Seat] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._queue: deque[_Flight] = deque()
        self._suspects: deque[_Flight] = deque()
        self._ids = count(1)
        self._watch: asyncio.Task[None] | None = None
        self._busy = asyncio.Event()
        self._broken: FloError | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Start every host at once; raise Unavailable with the fix if Node or isolated-vm is missing."""
        check_isolated_vm(self._folder)
        if self._node is None:
            self._node = find_node()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._wanted):
                    group.create_task(self._open_seat(alone=False))
        except* FloError as problems:
            await self.aclose()
            raise problems.exceptions[0] from None
        self._watch = asyncio.create_task(self._keep_watch(), name="v8-watch")

    async def aclose(self) -> None:
        """Kill every host and return when all are confirmed dead; runs under way end as lost."""
        self._closed = True
        for task in [*self._starting, *([self._watch] if self._watch else [])]:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        seats, self._seats = self._seats, []
        flights = [*self._queue, *self._suspects, *(flight for seat in seats for flight in seat.flights.values())]
        for flight in flights:
            _settle(flight, lost("The V8 pool was closed while this code was running"))
        await asyncio.gather(*(seat.host.aclose() for seat in seats))

    @property
    def pids(self) -> list[int]:
        """List the processes of the live hosts."""
        return [seat.host.pid for seat in self._seats]

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        """Run the code in a fresh isolate; never raises for what the code does. Cancelling the task kills it."""
        if self._closed or self._watch is None:
            raise Unavailable("The V8 pool is not started, or already closed")
        outcome: asyncio.Future[CodeOutcome] = asyncio.get_running_loop().create_future()
        id = next(self._ids)
        flight = _Flight(id=id, order=order, line=_order_line(id, order), on_log=on_log, outcome=outcome)
        self._queue.append(flight)
        self._dispatch()
        try:
            return await outcome
        finally:
            if outcome.cancelled():
                self._abandon(flight)

    def _dispatch(self) -> None:
        """Give queued runs to the hosts with the fewest, and suspects to hosts of their own."""
        while self._queue:
            if self._queue[0].outcome.done():
                self._queue.popleft()
                continue
            free = [s for s in self._seats if not s.alone and not s.closing and len(s.flights) < self._slots]
            if not free:
                break
            # Of those with the fewest, the one that has rested longest: it has had time to make isolates ready.
            self._seat_flight(min(free, key=lambda seat: (len(seat.flights), seat.used)), self._queue.popleft())
        while self._suspects:
            seat = next((s for s in self._seats if s.alone and not s.closing and not s.flights), None)
            if seat is None:
                alone = sum(1 for s in self._seats if s.alone) + sum(
                    1 for t in self._starting if t.get_name() == "alone"
                )
                if alone < self._wanted:
                    self._start_seat(alone=True)
                break
            flight = self._suspects.popleft()
            if not flight.outcome.done():
                self._seat_flight(seat, flight)

    def _seat_flight(self, seat: _Seat, flight: _Flight) -> None:
        flight.starts += 1
        flight.logs_seen = 0
        flight.overdue_at = _now() + flight.order.timeout.total_seconds() + self._grace
        seat.used = flight.id
        seat.flights[flight.id] = flight
        seat.host.send(flight.line)
        self._busy.set()

    def _abandon(self, flight: _Flight) -> None:
        """Stop a run that nobody waits for any more; its place is free when the host says that it has stopped."""
        for seat in self._seats:
            if flight.id in seat.flights:
                flight.overdue_at = _now() + self._grace
                seat.host.send(orjson.dumps({"type": "cancel", "id": flight.id}) + b"\n")

    # What hosts say ------------------------------------------------------------------------------------------

    def _heard(self, host: V8Host, message: dict[str, Any]) -> None:
        seat = next((seat for seat in self._seats if seat.host is host), None)
        flight = seat.flights.get(message["id"]) if seat is not None else None
        if seat is None or flight is None:
            return
        match message["type"]:
            case "log":
                _forward(flight, message["level"], message["text"])
            case "late":
                _settle(flight, timed_out(flight.order))
                flight.overdue_at = min(flight.overdue_at, _now() + self._grace)
            case "done":
                del seat.flights[flight.id]
                if not flight.outcome.done():
                    _settle(flight, outcome_of(flight.order, message))
                self._after(seat)
            case "fatal":
                del seat.flights[flight.id]
                _settle(flight, memory_exceeded(flight.order))
                self._replace(seat)
                self._after(seat)

    def _after(self, seat: _Seat) -> None:
        if not seat.flights and (seat.closing or (seat.alone and not self._suspects)):
            seat.closing = True
            seat.host.kill()
        if self._queue or self._suspects:
            self._dispatch()

    # Hosts come and go ---------------------------------------------------------------------------------------

    async def _open_seat(self, *, alone: bool) -> None:
        assert self._node is not None
        host = V8Host(on_message=self._heard, on_death=self._buried)
        node = [str(self._node), "--no-node-snapshot", "host.mjs", json.dumps(self._settings)]
        await host.start(self._launch(node), folder=self._folder)
        self._seats.append(_Seat(host=host, alone=alone))

    def _start_seat(self, *, alone: bool) -> None:
        """Start a host in the background, trying again with growing pauses."""
        task = asyncio.create_task(self._keep_opening(alone=alone), name="alone" if alone else "shared")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        task.add_done_callback(lambda _: None if self._closed else self._dispatch())

    async def _keep_opening(self, *, alone: bool) -> None:
        for pause in (*BACKOFF, None):
            try:
                await self._open_seat(alone=alone)
            except FloError as problem:
                self._broken = problem
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    def _replace(self, seat: _Seat) -> None:
        """Let a host take no more runs, and start another in its place."""
        if not seat.closing:
            seat.closing = True
            if not seat.alone and not self._closed:
                self._start_seat(alone=False)

    def _buried(self, host: V8Host) -> None:
        """A host is dead: tell who was guilty, and start the others again."""
        seat = next((seat for seat in self._seats if seat.host is host), None)
        if seat is None:
            return
        self._seats.remove(seat)
        self._replace(seat)
        for flight in seat.flights.values():
            if flight.outcome.done():
                continue
            if seat.alone:
                _settle(flight, _guilty(flight.order, seat))
            elif flight.starts >= MAX_STARTS:
                _settle(flight, lost(f"The V8 host died {flight.starts} times while this code was in it"))
            elif host.killed and not seat.too_big:
                self._queue.appendleft(flight)
            else:
                flight.suspect = True
                self._suspects.append(flight)
        self._dispatch()

    # The watch -----------------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        """Kill hosts that do not answer by their runs' deadlines, or that grow too big."""
        while True:
            await self._busy.wait()
            await asyncio.sleep(WATCH_EVERY.total_seconds())
            now = _now()
            for seat in [seat for seat in self._seats if seat.flights]:
                overdue = [flight for flight in seat.flights.values() if flight.overdue_at < now]
                if overdue:
                    self._kill_overdue(seat, overdue)
                elif _resident_mb(seat.host.pid) > SPARE_MB + sum(2 * f.order.memory_mb for f in seat.flights.values()):
                    seat.too_big = True
                    seat.host.kill()
            if not any(seat.flights for seat in self._seats):
                self._busy.clear()

    def _kill_overdue(self, seat: _Seat, overdue: Sequence[_Flight]) -> None:
        """Kill a host with runs that would not stop. If it had not even said that they are late, it hangs itself."""
        seat.too_big = not any(flight.outcome.done() for flight in overdue)
        seat.host.kill()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _order_line(id: int, order: CodeOrder) -> bytes:
    return (
        orjson.dumps(
            {
                "type": "run",
                "id": id,
                "source": order.source,
                "filename": order.filename,
                "inputs": json.dumps(order.inputs),
                "timeout_ms": order.timeout / timedelta(milliseconds=1),
                "memory_mb": order.memory_mb,
                "max_output_bytes": order.max_output_bytes,
            }
        )
        + b"\n"
    )


def _settle(flight: _Flight, outcome: CodeOutcome) -> None:
    if not flight.outcome.done():
        flight.outcome.set_result(outcome)


def _forward(flight: _Flight, level: str, text: str) -> None:
    flight.logs_seen += 1
    if flight.logs_seen > flight.logs_forwarded and not flight.outcome.done():
        flight.logs_forwarded += 1
        flight.on_log(level, text)


def _guilty(order: CodeOrder, seat: _Seat) -> CodeFailed:
    """Say what a run did that killed two hosts, the second while it was alone there."""
    if seat.too_big or "out of memory" in seat.host.last_words.lower():
        return memory_exceeded(order)
    return internal_error(f"{order.filename} ended its V8 host twice (exit code {seat.host.exit_code})")


def _resident_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * 4096 / 1_000_000
    return 0.0


def _launch_with_parent(command: Sequence[str]) -> Sequence[str]:
    return [*die_with_parent(), *command]
