"""One replica at a time does the scheduler's duties; the others stand by and take over when it stops renewing."""

from __future__ import annotations

import time
from datetime import timedelta

from dispatch.leases import Leadership
from dispatch.store.session import Store
from schemas.ids import new_id

#: How long a holder that dies keeps the others waiting, unless leases are shorter still.
LASTS = timedelta(seconds=10)
#: Questions to SQL while a turn lasts, by the holder to renew as by the others to take over.
_ASKED = 4


class Duty:
    """This process's turn at one duty. Everything done under it is safe twice; the turn only saves work."""

    def __init__(self, store: Store, name: str, *, lasts: timedelta = LASTS) -> None:
        self._leadership = Leadership(store, holder=new_id("sch"), lasts=lasts)
        self._ask_every = lasts.total_seconds() / _ASKED
        self._name = name
        self._held = False
        self._asked = float("-inf")

    async def mine(self) -> bool:
        """Tell whether this process has the turn, and renew it when it is time."""
        if time.monotonic() - self._asked >= self._ask_every:
            self._held = await self._leadership.hold(self._name)
            self._asked = time.monotonic()
        return self._held

    async def release(self) -> None:
        """Let another process take over at once."""
        if self._held:
            self._held = False
            await self._leadership.release([self._name])
