"""Keeps messages that can't be read in SQL, so that they may leave their lane."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from dispatch.store.dead_messages import DeadMessage, keep_message
from dispatch.store.session import Store, is_outage
from schemas.errors import Unavailable

log = structlog.get_logger()

#: Pause between tries while the database is away, and how long to go on. The message is not acknowledged meanwhile.
_PAUSE = timedelta(seconds=1)
_PATIENCE = timedelta(seconds=30)


class Morgue:
    """One worker's way to the table of dead messages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(self, message: DeadMessage) -> None:
        """Keep a message. Raises Unavailable when the database stays away: the message must stay where it is."""
        log.error("message.unreadable", carrier=message.carrier, lane=message.lane, id=message.id, why=message.reason)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE.total_seconds()
        while True:
            try:
                async with self._store.write() as connection:
                    await keep_message(connection, message)
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("message.not_kept", id=message.id, error=(str(error) or repr(error)).splitlines()[0])
                if loop.time() >= deadline:
                    raise Unavailable("the database did not take a message that can't be read") from error
                await asyncio.sleep(_PAUSE.total_seconds())
            else:
                return
