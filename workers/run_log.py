"""What a run says while it executes: numbered, kept in order, and made durable in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from dispatch.claims import Claim, LostClaim
from dispatch.store.writer import RunWriter
from schemas.run import Happening, RunEvent

#: How long an event may wait for company: no longer than an eye notices. A run that ends sooner takes its events along
#: in its own last write; short runs do so also in a worker whose slots are all busy.
LINGER = timedelta(milliseconds=75)


class RunLog:
    """The event sink of one attempt. When the claim turns out to be lost, it calls `on_lost` and says nothing more."""

    def __init__(
        self, claim: Claim, writer: RunWriter, *, holds: Callable[[], bool], on_lost: Callable[[str], None]
    ) -> None:
        """`holds` tells, by this machine's own clock, whether the tenure in which the run was claimed goes on."""
        self._claim = claim
        self._writer = writer
        self._holds = holds
        self._on_lost = on_lost
        #: The number of the newest event.
        self.last_seq = claim.last_seq
        self._unsaid: list[RunEvent] = []
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def emit(self, happening: Happening) -> None:
        """Number a happening. Raises LostClaim instead of letting a run go on whose lease has run out."""
        if not self._holds():
            self._on_lost("the worker's lease ran out")
            raise LostClaim(self._claim.run_id)
        self.last_seq += 1
        self._unsaid.append(RunEvent(self._claim.run_id, self.last_seq, happening))
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER.total_seconds(), self._begin)

    async def flush(self) -> None:
        """Return once everything emitted so far is in SQL. Raises LostClaim when it can't be any more."""
        while self._unsaid or self._writing is not None:
            self._begin()
            if self._writing is not None:
                await asyncio.shield(self._writing)

    async def take_rest(self) -> list[RunEvent]:
        """Stop, and hand over what has not been written, for the run's last write."""
        self._stop_timer()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._stop_timer()
        rest, self._unsaid = self._unsaid, []
        return rest

    def _begin(self) -> None:
        self._stop_timer()
        if self._writing is None and self._unsaid:
            self._writing = asyncio.create_task(self._write(), name=f"events of {self._claim.run_id}")
            self._writing.add_done_callback(_look_at)

    async def _write(self) -> None:
        # `_writing` is cleared here and not in a callback: whoever sees the task done must not find it still set.
        try:
            batch, self._unsaid = self._unsaid, []
            await self._writer.append(self._claim, batch)
        except LostClaim:
            self._on_lost("another attempt has the run")
            raise
        except Exception as error:
            # Whatever it is: a history with a hole in it must not go on.
            self._on_lost(f"its events can't be stored: {error}")
            raise LostClaim(self._claim.run_id) from error
        finally:
            self._writing = None
        if self._unsaid:
            self._begin()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of a failure that nobody waits for: `on_lost` has heard of it."""
    if not task.cancelled():
        task.exception()
