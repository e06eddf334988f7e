"""What is known of a host and the runs in it, and the verdict when it dies; no I/O."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto

from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, OnLog
from workers.sandboxes.v8_host import V8Host
from workers.sandboxes.v8_outcome import internal_error, lost, memory_exceeded, timed_out

#: Times that a run is started among others, whoever ended its host; after that it runs alone.
MOST_STARTS = 4
#: Memory in MB that a host may have beyond twice what its runs may use: V8 notices that a heap is too big only at its
#: next full collection, and native memory (ICU, regular expressions) not at all.
SPARE_MB = 512


class Ward(IntEnum):
    """Who shares a host. A run moves one up each time that its host dies and it may have been the reason."""

    EVERYONE = 0
    #: Most deaths are nobody's fault, so suspects start again together, and at once.
    SUSPECTS = 1
    #: Whoever is alone in a host that dies is guilty.
    ALONE = 2


class Death(Enum):
    """Why a host died."""

    #: By itself, or by someone else's hand.
    UNKNOWN = auto()
    #: Killed: a run that it had stopped at its deadline would not stop.
    STUCK = auto()
    #: Killed: it did not even say that a run was late.
    HUNG = auto()
    #: Killed: it took too much memory.
    TOO_BIG = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class Flight:
    """A run on its way through the pool."""

    id: int
    order: CodeOrder
    #: What is sent to the host.
    line: bytes
    on_log: OnLog
    outcome: asyncio.Future[CodeOutcome]
    ward: Ward = Ward.EVERYONE
    starts: int = 0
    #: When the host is killed if the run has not left it, in the loop's time.
    overdue_at: float = 0.0
    #: Log lines seen in this start, and forwarded in all, so that a second start repeats none.
    logs_seen: int = 0
    logs_forwarded: int = 0

    def settle(self, outcome: CodeOutcome) -> None:
        """Give the outcome to whoever waits; the first one counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def log(self, level: str, text: str) -> None:
        """Forward a line unless an earlier start already did. If the caller's `on_log` fails, so does its run."""
        self.logs_seen += 1
        if self.logs_seen <= self.logs_forwarded or self.outcome.done():
            return
        self.logs_forwarded += 1
        try:
            self.on_log(level, text)
        except Exception as problem:  # noqa: BLE001 - the caller's own, given back to the caller
            self.outcome.set_exception(problem)


@dataclass(slots=True, eq=False, kw_only=True)
class Seat:
    """A host and the runs in it."""

    host: V8Host
    ward: Ward
    flights: dict[int, Flight] = field(default_factory=dict)
    #: The last run that it was given.
    used: int = 0
    #: Takes no more runs, and is killed when those it has are over.
    closing: bool = False
    death: Death = Death.UNKNOWN

    def memory_allowed_mb(self) -> int:
        """Tell how much its runs may make it grow to before it is killed."""
        return SPARE_MB + sum(2 * flight.order.memory_mb for flight in self.flights.values())

    def kill(self, why: Death) -> None:
        self.death = why
        self.closing = True
        self.host.kill()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the runs of a dead host."""

    guilty: list[tuple[Flight, CodeFailed]]
    #: Start again, each in its ward.
    again: list[tuple[Flight, Ward]]


def judge(seat: Seat) -> Verdict:
    """Decide who was guilty of the death of this host, and where the others start again."""
    flights = [flight for flight in seat.flights.values() if not flight.outcome.done()]
    # One that was there without others by chance may only have been there when someone else killed the host.
    alone = seat.ward is Ward.ALONE or (len(seat.flights) == 1 and seat.death is not Death.UNKNOWN)
    if alone and seat.death is not Death.STUCK:
        return Verdict(guilty=[(flight, _sentence(flight.order, seat)) for flight in flights], again=[])
    return Verdict(guilty=[], again=[(flight, _next_ward(flight, seat.death)) for flight in flights])


def _next_ward(flight: Flight, death: Death) -> Ward:
    if flight.starts >= MOST_STARTS:
        return Ward.ALONE
    if death is Death.STUCK:
        return flight.ward
    return Ward(min(flight.ward + 1, Ward.ALONE))


def _sentence(order: CodeOrder, seat: Seat) -> CodeFailed:
    words = seat.host.last_words.lower()
    if seat.death is Death.HUNG:
        return timed_out(order)
    if seat.death is Death.TOO_BIG or "out of memory" in words or "allocation failed" in words:
        return memory_exceeded(order)
    code = seat.host.exit_code
    if code == -signal.SIGKILL:
        return lost(f"The V8 host of {order.filename} was killed each time, perhaps by the kernel for want of memory")
    return internal_error(f"{order.filename} crashed its V8 host each time it was tried (exit code {code})")
