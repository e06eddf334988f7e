"""Removes the containers that dead workers have left, whoever's they were.

A container whose worker is gone ends itself (`workers/runner/contained.py`), so what is left is mostly stopped; only a
container of an image without our program may still run. Who is dead is for SQL to say, by the same rule by which its
runs are given to others. A worker that SQL does not know is another Flo's, on the same daemon: its containers are only
touched when they have been over for so long that nobody can still be looking at them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from schemas.errors import FloError
from workers.sandboxes.docker.container import OWNER
from workers.sandboxes.docker.daemon import Daemon

log = structlog.get_logger()

#: How long a container of nobody that we know is left lying about after its end.
FORGOTTEN = timedelta(hours=1)

#: Tells which of these workers SQL takes for dead.
DeadAmong = Callable[[Collection[str]], Awaitable[Collection[str]]]


class Sweeper:
    """Looks through the daemon's containers now and then."""

    def __init__(self, daemon: Daemon, dead_among: DeadAmong, *, every: timedelta) -> None:
        self._daemon = daemon
        self._dead_among = dead_among
        self._every = every

    async def run(self) -> None:
        """Sweep until cancelled; a daemon or a database that is away is asked again next time."""
        while True:
            try:
                await self.sweep()
            except FloError as reason:
                log.debug("containers.not_swept", reason=str(reason))
            except Exception as trouble:  # noqa: BLE001 - a side duty: it must not end with the database's troubles
                log.warning("containers.not_swept", reason=repr(trouble))
            await asyncio.sleep(self._every.total_seconds())

    async def sweep(self) -> int:
        """Remove what is nobody's any more; tell how many containers that were."""
        found = await self._daemon.ask(lambda client: client.containers(all=True, filters={"label": OWNER}))
        owners = {each["Labels"][OWNER] for each in found}
        dead = set(await self._dead_among(owners)) if owners else set()
        swept = 0
        for each in found:
            owner = each["Labels"][OWNER]
            if owner in dead or await self._is_forgotten(each):
                swept += await self._remove(each["Id"], owner)
        return swept

    async def _is_forgotten(self, listed: dict[str, Any]) -> bool:
        long_ago = datetime.now(UTC) - FORGOTTEN
        if listed["State"] not in {"exited", "dead", "created"} or listed["Created"] > long_ago.timestamp():
            return False
        try:
            known = await self._daemon.ask(lambda client: client.inspect_container(listed["Id"]))
        except FloError:
            return False
        # "0001-01-01T00:00:00Z" for one that never ran: as texts of one form, they can be compared.
        return str(known["State"]["FinishedAt"]) < long_ago.isoformat()

    async def _remove(self, container: str, owner: str) -> bool:
        try:
            await self._daemon.ask(lambda client: client.remove_container(container, force=True, v=True))
        except FloError:
            return False  # another worker was quicker
        log.info("container.swept", container=container[:12], worker=owner)
        return True
