"""One attempt at a run in this executor: what it has told so far, who listens, and how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from schemas.json import JSONObject
from schemas.outcome import Cancelled, Outcome
from schemas.run import Happening
from workers.runner import wire
from workers.runner.channel import line_of
from workers.runner.server.words import ALIVE, ALIVE_EVERY


class Flight:
    """The event sink of an attempt. Everything told is kept, so that whoever lost the stream goes on where it broke."""

    def __init__(self, run_id: str, attempt: int, *, confirms: bool) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.outcome: Outcome | None = None
        #: Set once the attempt is over, and nothing of it is left.
        self.over = asyncio.Event()
        self.held_until: float | None = None
        self._confirms = confirms
        self._lines: list[bytes] = []
        self._saved = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[Outcome] | None = None
        self._because: Outcome | None = None

    @property
    def size(self) -> int:
        """How many bytes it keeps."""
        return sum(map(len, self._lines))

    def hold(self, until: float | None) -> None:
        """Note until when, by the monotonic clock, the sender has it; it is never held for less than before."""
        if until is not None:
            self.held_until = max(self.held_until or 0.0, until)

    def is_let_go(self) -> bool:
        """Tell whether the sender's last word has run out: another may have the run by now."""
        return self.held_until is not None and time.monotonic() > self.held_until

    def begin(self, task: asyncio.Task[Outcome]) -> None:
        self._task = task
        task.add_done_callback(self._end)

    def emit(self, happening: Happening) -> None:
        self._say({"say": "event", **wire.happening_to(happening)})

    async def flush(self) -> None:
        """Wait until whoever keeps the run's history says that it has all of it."""
        if self._confirms:
            self._say({"say": "flush"})
            told = len(self._lines)
            while self._saved < told:
                await self._news.wait()

    def saved(self, seq: int) -> None:
        """Take note that the lines up to this one are durable."""
        self._saved = max(self._saved, seq)
        self._wake()

    def stop_soon(self, because: Outcome) -> None:
        """Begin to end the attempt, if it is not over."""
        if self._because is None:
            self._because = because
            if self._task is not None:
                self._task.cancel()

    async def stop(self, because: Outcome) -> None:
        """End the attempt if it is not over, and return when nothing of it is left."""
        self.stop_soon(because)
        await self.over.wait()

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Give all lines after a number, as they come, until the attempt is over."""
        while True:
            if after < len(self._lines):
                fresh = self._lines[after:]
                after = len(self._lines)
                yield b"".join(fresh)
            elif self.over.is_set():
                return
            else:
                try:
                    await asyncio.wait_for(self._news.wait(), ALIVE_EVERY)
                except TimeoutError:
                    yield ALIVE

    def state(self) -> JSONObject:
        """Show how the attempt stands."""
        shown: JSONObject = {"run_id": self.run_id, "attempt": self.attempt, "told": len(self._lines)}
        if self.outcome is None:
            return {**shown, "status": "running"}
        return {**shown, "status": "over", "outcome": wire.outcome_to(self.outcome)}

    def _say(self, message: JSONObject) -> None:
        self._lines.append(line_of({"seq": len(self._lines) + 1, **message}) + b"\n")
        self._wake()

    def _wake(self) -> None:
        # Each waiter hears of what came after it looked, and no news is waited for twice.
        self._news.set()
        self._news = asyncio.Event()

    def _end(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled():  # perhaps before its first step
            self.outcome = self._because or Cancelled(reason="stopped from outside")
        else:
            self.outcome = task.result()
        self._say({"say": "done", "outcome": wire.outcome_to(self.outcome)})
        self.over.set()
        self._wake()
