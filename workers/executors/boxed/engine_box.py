"""One box with an engine in it, and the runs that it executes. The far side is `workers/runner/boxed.py`.

Whatever the box says is other people's word: it may tell of the nodes of its own runs and nothing else, and gets what
its runs may have. One that talks nonsense, or floods, is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from dispatch.claims import LostClaim
from schemas.errors import Unavailable
from schemas.flow import FlowDocument, content_hash
from schemas.json import JSONObject
from schemas.outcome import Outcome, Parked
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.boxed.desk import Desk, Services
from workers.executors.boxed.verdict import BoxDied, describe
from workers.linking import HOLDERS
from workers.runner import wire
from workers.runner.channel import Channel
from workers.sandboxes.box.base import BoxedProgram, CommandOutcome
from workers.sandboxes.box.egress import Egress
from workers.tenure import Holds

#: Seconds from a box's start to its first word: a cold interpreter, where boxes are not forked from a warm one.
PATIENCE = 20.0
#: Seconds that a run may take to stop when it is told to.
STOP_PATIENCE = 5.0
#: Seconds that a box has to end by itself once its engine has.
LAST_WORDS = 1.0
#: Happenings of one run that are taken.
MOST_TOLD = 200_000
#: How far a box's clock may be from ours; what it says of the time beyond that is not believed.
_CLOCK = timedelta(seconds=5)


@dataclass(slots=True, eq=False)
class _Flight:
    """A run in the box."""

    order: RunOrder
    events: EventSink
    #: For whoever waits for it, and cancelled with them.
    outcome: asyncio.Future[Outcome]
    #: What its happenings may be about.
    subjects: frozenset[str | None]
    told: int = 0
    #: The box has said something of it.
    heard: bool = False
    #: Nothing more of it counts.
    is_over: bool = False
    #: For whoever waits until it has stopped.
    stopped: asyncio.Event | None = None

    def end(self, how: Outcome | Exception) -> None:
        self.is_over = True
        if self.stopped is not None:
            self.stopped.set()
        if self.outcome.done():
            return
        if isinstance(how, Exception):
            self.outcome.set_exception(how)
        else:
            self.outcome.set_result(how)


@dataclass(frozen=True, slots=True)
class _Known:
    """A document that the box was told."""

    document: FlowDocument
    #: What the happenings of its runs may be about.
    subjects: frozenset[str | None]

    @classmethod
    def of(cls, document: FlowDocument) -> _Known:
        return cls(document, frozenset([None, *(node.id for node in document.nodes)]))

    def is_of(self, document: FlowDocument) -> bool:
        return self.document is document or self.document == document


class EngineBox:
    """Made by `start`; executes runs, many at a time, until it dies or is closed."""

    def __init__(self, program: BoxedProgram, services: Services, egress: Egress, holds: Holds) -> None:
        self._program = program
        self._holds = holds
        self._desk = Desk(services, egress)
        self._channel: Channel | None = None
        self._numbers = count(1)
        self._flights: dict[int, _Flight] = {}
        self._known: dict[str, _Known] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._burial = asyncio.create_task(self._bury(), name="engine box")
        self._is_gone = False
        self._hung = asyncio.Event()
        #: Runs that it was ever given.
        self.given = 0

    @classmethod
    async def start(cls, program: BoxedProgram, services: Services, egress: Egress, holds: Holds) -> EngineBox:
        """Meet the program in a box; raise Unavailable if it never says that it is ready, or comes too late.

        `holds` was begun before the box: in the worker's next tenure it has no way out any more.
        """
        box = cls(program, services, egress, holds)
        try:
            box._channel = await Channel.open(program.channel.dup(), hear=box._hear, lost=box._hung_up)
            async with asyncio.timeout(PATIENCE):
                await box._ready
            if not holds():  # whoever wants a box would find this one dead, and ask for another at once
                raise Unavailable("the worker's lease ran out")
        except BaseException as problem:
            await box.aclose()
            if isinstance(problem, TimeoutError):
                raise Unavailable(f"the engine in its box said nothing for {PATIENCE:g} s") from None
            raise
        return box

    @property
    def is_dead(self) -> bool:
        """Whether it is of no more use; `aclose` confirms that nothing of it is left."""
        return self._is_gone or self._burial.done() or not self._holds()

    @property
    def is_buried(self) -> bool:
        """Whether nothing of it is left."""
        return self._burial.done()

    @property
    def runs(self) -> int:
        """How many runs are in it now."""
        return len(self._flights)

    async def run(self, order: RunOrder, events: EventSink, terms: JSONObject) -> Outcome:
        """Execute a run under these terms; raise BoxDied if the box ends first.

        Being cancelled stops the run and returns when it has stopped; a box that does not obey dies, and so does one
        whose worker has lost its lease: its other runs are lost, too.
        """
        if self._channel is None or self.is_dead:
            raise Unavailable("the box of this run is dead")
        number = next(self._numbers)
        self.given += 1
        key = _key(order)
        known = self._known.get(key)
        if known is None or not known.is_of(order.document):
            known = self._known[key] = _Known.of(order.document)
            self._channel.say({"do": "know", "key": key, "document": order.document.model_dump(mode="json")})
        flight = _Flight(order, events, asyncio.get_running_loop().create_future(), known.subjects)
        self._flights[number] = flight
        self._channel.say({"do": "run", "run": number, "key": key, "order": _order(order, terms)})
        try:
            return await flight.outcome
        except asyncio.CancelledError:
            if not flight.outcome.cancelled():  # it came in the same moment, and is looked at by nobody else
                flight.outcome.exception()
            await self._stop(number, flight)
            raise
        finally:
            del self._flights[number]
            await self._desk.settle(order)

    def kill(self) -> None:
        """Kill the box now; its runs hear of it once it is confirmed dead."""
        self._program.kill()

    async def aclose(self) -> CommandOutcome:
        """Kill the box, and tell how it ended when it is confirmed dead."""
        self.kill()
        return await asyncio.shield(self._burial)

    async def _stop(self, number: int, flight: _Flight) -> None:
        assert self._channel is not None
        if self._holds() and not flight.is_over:
            flight.stopped = asyncio.Event()
            self._channel.say({"do": "cancel", "run": number})
            with suppress(TimeoutError):
                await asyncio.wait_for(flight.stopped.wait(), STOP_PATIENCE)
        if not flight.is_over:
            await self.aclose()

    def _hear(self, message: wire.Said) -> None:
        """Take a message. Raising hangs up, which kills the box."""
        match message["say"]:
            case "ready":
                if not self._ready.done():
                    self._ready.set_result(None)
            case "drop":
                self._desk.drop(message["ask"])
            case what:
                flight = self._flights.get(message["run"])
                if flight is not None and not flight.is_over:  # else it was stopped
                    flight.heard = True
                    self._hear_of(flight, what, message)

    def _hear_of(self, flight: _Flight, what: str, message: wire.Said) -> None:
        match what:
            case "events":
                self._tell(flight, message["events"])
            case "ask":
                assert self._channel is not None
                self._desk.take(self._channel, flight.order, flight.events, message)
            case "done":
                self._tell(flight, message["events"])
                if flight.is_over:  # its claim was lost
                    return
                outcome = wire.outcome_from(message["outcome"])
                if isinstance(outcome, Parked) and not _is_of(flight, outcome):
                    raise ValueError("not the waits of this run's nodes, one each")
                flight.end(outcome)
            case _:
                raise ValueError(f"{what!r} is not what a runner says")

    def _tell(self, flight: _Flight, events: Sequence[wire.Said]) -> None:
        flight.told += len(events)
        happenings = [wire.happening_from(said) for said in events]
        now = datetime.now(UTC)
        for happening in happenings:
            if happening.type not in wire.TOLD or happening.node_id not in flight.subjects or flight.told > MOST_TOLD:
                raise ValueError("not a happening of this run's nodes, or too many of them")
        try:
            for happening in happenings:
                late = abs(happening.time - now) > _CLOCK
                flight.events.emit(replace(happening, time=now) if late else happening)
        except LostClaim as lost:  # another attempt has the run: it must end here, and the box live on
            flight.end(lost)

    def _hung_up(self, mad: bool) -> None:
        """Kill a box that is mad at once; one whose engine is gone gets a moment to tell how it ended."""
        self._is_gone = True
        self._hung.set()
        if mad:
            self.kill()
        else:
            asyncio.get_running_loop().call_later(LAST_WORDS, self.kill)

    async def _bury(self) -> CommandOutcome:
        ending = await self._program.wait()
        unread = False
        if self._channel is not None:
            with suppress(TimeoutError):  # what it has said is heard to the end
                await asyncio.wait_for(self._hung.wait(), LAST_WORDS)
            unread = self._channel.is_unread
            self._channel.close()
        await self._desk.aclose()
        if not self._ready.done():
            self._ready.set_exception(Unavailable(f"the engine did not start in its box: {describe(ending)}"))
            self._ready.exception()  # looked at here, in case nobody waits for it any more
        for flight in self._flights.values():
            if not flight.is_over:
                flight.end(BoxDied(ending, alone=self.given == 1, began=flight.heard or not unread))
        return ending


def _key(order: RunOrder) -> str:
    """Name a document, so that a box is told it once; what a flow calls may be another version next time."""
    name = f"{order.flow}@{order.version}"
    calls = any(node.node_type in HOLDERS for node in order.document.nodes)
    return f"{name} {content_hash(order.document)}" if calls else name


def _is_of(flight: _Flight, parked: Parked) -> bool:
    nodes = [wait.node_id for wait in parked.waits]
    return 0 < len(nodes) == len(set(nodes)) and flight.subjects.issuperset(nodes)


def _order(order: RunOrder, terms: JSONObject) -> JSONObject:
    return {
        "run_id": order.run_id,
        "app": order.app,
        "attempt": order.attempt,
        "payload": order.payload,
        "may_park": order.may_park,
        "past": [wire.happening_to(said) for said in order.past],
        **terms,
    }
