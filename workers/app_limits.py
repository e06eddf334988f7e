"""What operators allow the apps whose runs come by, remembered for some seconds."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from schemas.app import AppLimits

if TYPE_CHECKING:
    from dispatch.store.session import Store

#: How long a change may go unseen by a worker.
REMEMBERED = timedelta(seconds=5)
_MOST = 10_000


class LimitsOfApps(Protocol):
    """Knows what each app is allowed."""

    async def read(self, app: str) -> AppLimits:
        """Give the limits of an app; those that name nothing for one without any."""
        ...


class NoLimits:
    """For runs that no operator has anything to say of."""

    async def read(self, app: str) -> AppLimits:
        return AppLimits()


class StoredLimits:
    """Reads them from SQL."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, AppLimits]] = {}
        #: Looks into SQL that are under way: whoever asks meanwhile waits for the same.
        self._looking: dict[str, asyncio.Task[AppLimits]] = {}

    async def read(self, app: str) -> AppLimits:
        known = self._known.get(app)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        look = self._looking.get(app)
        if look is None:
            look = self._looking[app] = asyncio.create_task(self._look(app), name=f"limits of {app}")
            look.add_done_callback(lambda _: self._looking.pop(app))
        return await asyncio.shield(look)

    async def _look(self, app: str) -> AppLimits:
        # Imported only here: executors elsewhere know no SQL, and start faster without it.
        from dispatch.store.limits import read_limits

        async with self._store.read() as connection:
            limits = await read_limits(connection, app) or AppLimits()
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[app] = (time.monotonic() + REMEMBERED.total_seconds(), limits)
        return limits
