"""Deletes what has been kept long enough, a little at a time, so that nobody who writes waits for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from dispatch.store.retention import Retention, prune_rest, prune_runs
from dispatch.store.session import Store
from dispatch.store.shared import prune_shared
from schemas.settings import Settings

log = structlog.get_logger()

#: Runs in one transaction: some ten milliseconds on SQLite, which takes one writer at a time.
_BATCH = 200
#: Pause between two batches, in which the others write, and between two passes.
_BREATH = timedelta(milliseconds=200)
_REST = timedelta(minutes=5)


class Pruner:
    """One process's passes over everything that is kept."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._runs = _days(settings.retention_days)
        self._dead_letters = _days(settings.dead_letter_days)
        self._after: str | None = None

    async def prune(self) -> timedelta:
        """Delete one batch; answer when to come again."""
        now = datetime.now(UTC)
        keep = Retention(
            runs=None if self._runs is None else now - self._runs,
            dead_letters=None if self._dead_letters is None else now - self._dead_letters,
        )
        pruned, self._after = await self._store.transact(
            partial(prune_runs, keep=keep, after=self._after or "", most=_BATCH)
        )
        if self._after is None:
            pruned += (rest := await self._store.transact(partial(prune_rest, keep=keep, most=_BATCH)))
            pruned += await self._store.transact(partial(prune_shared, now=now, most=_BATCH))
        else:
            rest = _BATCH
        if pruned:
            log.info("retention.pruned", rows=pruned)
        return _BREATH if rest >= _BATCH else _REST


def _days(number: float) -> timedelta | None:
    return timedelta(days=number) if number else None
