"""Hears what a function says of an attempt, and tells it on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schemas.json import loads
from schemas.outcome import Outcome
from schemas.outcome_words import outcome_from
from schemas.run import Happening
from workers.engine.sink import EventSink
from workers.executors.awslambda.errors import FunctionFailed, LambdaTrouble, failure_in
from workers.executors.base import RunOrder
from workers.runner import wire
from workers.runner.awslambda.words import Told, answer_from

#: How far a function's clock may be from ours; what it says of the time beyond that is not believed.
_CLOCK: Final = timedelta(seconds=5)


class Listener:
    """What is heard of one attempt. A function that answers in one piece says all lines at once."""

    def __init__(self, order: RunOrder, events: EventSink) -> None:
        self._events = events
        #: What its happenings may be about.
        self._subjects = frozenset([None, *(node.id for node in order.document.nodes)])
        self._heard = 0
        #: Nobody takes note of what happens any more, only of the end.
        self.muted = False

    async def listen(self, pieces: AsyncIterator[bytes]) -> Outcome | Told | None:
        """Hear an answer out; None when it stops before the end.

        Raises FunctionFailed, also for what can't be meant; LostClaim when the events are no longer wanted.
        """
        end: Outcome | Told | None = None
        try:
            async for line in _lines(pieces):
                end = end or await self._hear(line)
        except LambdaTrouble:
            if end is None:  # else what became of the function after its last word is all the same
                raise
        return end

    async def _hear(self, line: bytes) -> Outcome | Told | None:
        try:
            said = loads(line)
            if "errorMessage" in said:
                raise failure_in(line)
            if "say" in said and said["say"] != "told":
                return await self._line(said)
            answer = answer_from(said)
            if isinstance(answer, Told):
                return answer
            for one in answer.lines:
                await self._line(one)
            return outcome_from(answer.outcome)
        except (ValueError, LookupError, TypeError, AttributeError) as mistake:
            raise FunctionFailed("", f"it talks nonsense: {mistake!r}; is it Flo's, of this version?") from mistake

    async def _line(self, said: Mapping[str, Any]) -> Outcome | None:
        if said["say"] == "alive":
            return None
        if said["seq"] != self._heard + 1:
            raise ValueError(f"line {said['seq']} came after line {self._heard}")
        self._heard += 1
        match said["say"]:
            case "event":
                self._tell(wire.happening_from(said))
            case "flush" if not self.muted:
                await self._events.flush()
            case "done":
                return outcome_from(said["outcome"])
        return None

    def _tell(self, happening: Happening) -> None:
        if happening.type not in wire.TOLD or happening.node_id not in self._subjects:
            raise ValueError("not a happening of this run's nodes")
        if not self.muted:
            now = datetime.now(UTC)
            self._events.emit(replace(happening, time=now) if abs(happening.time - now) > _CLOCK else happening)


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Put lines together; an answer in one piece is one, without an end."""
    partial: list[bytes] = []
    async for piece in pieces:
        *lines, rest = piece.split(b"\n")
        if lines:
            lines[0] = b"".join([*partial, lines[0]])
            partial.clear()
        if rest:
            partial.append(rest)
        for line in lines:
            yield line
    if partial:
        yield b"".join(partial)
