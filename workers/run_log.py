"""What a run says while it executes: numbered, kept in order, and made durable in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from dispatch.claims import Claim, LostClaim
from dispatch.store.writer import RunWriter
from schemas.errors import Unavailable
from schemas.run import Happening, RunEvent

#: How long an event may wait for company. A run that ends sooner takes its events along in its own last write.
LINGER = timedelta(milliseconds=20)


class RunLog:
    """The event sink of one attempt. When the claim turns out to be lost, it calls `on_lost` and says nothing more."""

    def __init__(
        self, claim: Claim, writer: RunWriter, *, holds: Callable[[], bool], on_lost: Callable[[str], None]
    ) -> None:
        """`holds` tells, from this machine's own clock, whether the worker's lease can still be counted on."""
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
            await asyncio.shield(self._writing)
        rest, self._unsaid = self._unsaid, []
        return rest

    def _begin(self) -> None:
        self._stop_timer()
        if self._writing is None and self._unsaid:
            batch, self._unsaid = self._unsaid, []
            self._writing = asyncio.create_task(self._write(batch), name=f"events of {self._claim.run_id}")
            self._writing.add_done_callback(self._written)

    async def _write(self, batch: list[RunEvent]) -> None:
        await self._writer.append(self._claim, batch)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, LostClaim | Unavailable):
            self._on_lost(str(error) if isinstance(error, Unavailable) else "another attempt has the run")
        elif error is not None:
            self._on_lost(f"events could not be written: {error}")
        elif self._unsaid:
            self._begin()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
