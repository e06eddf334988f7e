"""What the engine does for a node that holds flows of its own: runs them, and remembers which parts are done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from schemas.json import JSONObject, JSONValue
from schemas.outcome import Outcome
from schemas.run import EventType, Happening
from workers.engine.plan import Plan, Step
from workers.engine.sink import EventSink

RunPlan = Callable[[Plan, JSONValue, EventSink], Awaitable[Outcome]]
Say = Callable[[EventType, str, JSONObject], None]

#: What the nodes of an inner flow say that reaches the feed, as words of the node that holds the flow.
_HEARD = (EventType.LOG, EventType.DATA)


class InnerFlows:
    """The flows inside one node, during one try at it."""

    def __init__(self, step: Step, run: RunPlan, events: EventSink, say: Say, *, kept: Mapping[int, JSONValue]) -> None:
        self._step = step
        self._run = run
        self._events = events
        self._say = say
        self.kept = kept

    async def run(self, place: str, payload: JSONValue, *, label: str) -> Outcome:
        outward = _Outward(self._events, lambda type_, data: self._say(type_, self._step.id, data), label)
        return await self._run(self._step.inner[place], payload, outward)

    async def keep(self, part: int, value: JSONValue) -> None:
        if self._step.has_effects:
            self._say(EventType.DATA, self._step.id, {"port": "results", "part": part, "value": value})
            await self._events.flush()


class _Outward:
    """Passes on what an inner flow logs and shows; its nodes are no nodes of the run."""

    def __init__(self, events: EventSink, emit: Callable[[EventType, JSONObject], None], label: str) -> None:
        self._events = events
        self._emit = emit
        self._label = label

    def emit(self, happening: Happening) -> None:
        # The parts of a node that is itself inside another one are no parts of the outer one's work.
        if happening.type in _HEARD and "part" not in happening.data:
            where = f"{self._label}/{happening.node_id}" if happening.node_id else self._label
            self._emit(happening.type, {**happening.data, "inner": where})

    async def flush(self) -> None:
        await self._events.flush()
