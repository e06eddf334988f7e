"""What is known of a host and the runs in it, and the verdict when it dies; no I/O."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto

from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, OnLog
from workers.sandboxes.node.host import NodeHost
from workers.sandboxes.node.outcome import killed, lost, memory_exceeded, timed_out

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

    host: NodeHost
    ward: Ward
    #: Its runs may start again in another host: they have had no effect.
    repeats: bool = True
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
    # One that was there without others by chance may only have been there when someone else killed the host; but
    # where nothing starts twice, that is all that will ever be known.
    certain = seat.death is not Death.UNKNOWN or not seat.repeats
    alone = seat.ward is Ward.ALONE or (len(seat.flights) == 1 and certain)
    if alone and seat.death is not Death.STUCK:
        return Verdict(guilty=[(flight, _sentence(flight, seat)) for flight in flights], again=[])
    if not seat.repeats:
        return Verdict(guilty=[(flight, _lost_with(seat, flight.order)) for flight in flights], again=[])
    return Verdict(guilty=[], again=[(flight, _next_ward(flight, seat.death)) for flight in flights])


def _next_ward(flight: Flight, death: Death) -> Ward:
    if flight.starts >= MOST_STARTS:
        return Ward.ALONE
    if death is Death.STUCK:
        return flight.ward
    return Ward(min(flight.ward + 1, Ward.ALONE))


def _sentence(flight: Flight, seat: Seat) -> CodeFailed:
    order = flight.order
    death, name = seat.host.death, seat.host.name
    assert death is not None
    words = death.last_words.lower()
    often = " each time it was tried" if flight.starts > 1 else ""
    if seat.death is Death.HUNG:
        return timed_out(order)
    if seat.death is Death.TOO_BIG or death.out_of_memory or "out of memory" in words or "allocation failed" in words:
        return memory_exceeded(order)
    if death.code == -signal.SIGKILL:
        return lost(f"The {name} host of {order.filename} was killed{often}, perhaps by the kernel for want of memory")
    return killed(f"{order.filename} crashed its {name} host{often} (exit code {death.code})")


def _lost_with(seat: Seat, order: CodeOrder) -> CodeFailed:
    """Tell a run that went down with its host, which may have been another's fault, or nobody's."""
    death, name = seat.host.death, seat.host.name
    assert death is not None
    why = {
        Death.UNKNOWN: f"ended with code {death.code}",
        Death.STUCK: "was killed, as another run in it would not stop",
        Death.HUNG: "was killed, as it no longer answered",
        Death.TOO_BIG: "was killed, as its runs took too much memory",
    }[seat.death]
    return lost(
        f"The {name} host of {order.filename} {why}; what the code had done until then stays done, "
        "so it is started again only if its retry_policy says so"
    )
