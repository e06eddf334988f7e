"""Where the happenings of a run go."""

from __future__ import annotations

from typing import Protocol

from schemas.run import Happening


class EventSink(Protocol):
    """Takes the happenings of one run, in order."""

    def emit(self, happening: Happening) -> None:
        """Take one more happening; buffer it, never block."""
        ...

    async def flush(self) -> None:
        """Return once everything emitted so far is durable."""
        ...


class MemorySink:
    """Keeps the happenings in a list: for tests, and for runs that nobody will ask about later."""

    def __init__(self) -> None:
        self.happenings: list[Happening] = []

    def emit(self, happening: Happening) -> None:
        self.happenings.append(happening)

    async def flush(self) -> None:
        return
