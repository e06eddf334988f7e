"""One ear for all live feeds of this process: it hears the bell, and looks into SQL for what no hint told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import ColumnElement, RowMapping, literal_column, select

from dispatch.bell import Bell, Topic
from dispatch.store.runs import runs
from dispatch.store.session import Store, is_outage
from schemas.ids import first_id
from schemas.json import JSONValue
from schemas.run import RunStatus

log = structlog.get_logger()

T = TypeVar("T")
Listener = Callable[[set[str]], None]

#: Seconds between two looks: hints may be lost, of a run just accepted there is none, and without Redis none at all.
_LOOK_WITH_BELL = 1.0
_LOOK_WITHOUT_BELL = 0.25
#: A look that takes long, because very many runs are under way, takes at most this part of the time.
_LOOK_SHARE = 0.1
#: What clocks may differ by, and a commit may take: runs made as long before the last look are looked at again.
_OVERLAP = timedelta(seconds=5)
#: Runs asked about in one statement.
_BATCH = 500

#: Literals, so that the partial indexes of these states serve.
_QUEUED = runs.c.status == literal_column(f"'{RunStatus.QUEUED}'")
_RUNNING = runs.c.status == literal_column(f"'{RunStatus.RUNNING}'")


class Ear:
    """Passes on which runs have news; while nobody listens it does nothing."""

    def __init__(self, bell: Bell, store: Store) -> None:
        self._bell = bell
        self._store = store
        self._listeners: set[Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        bell.listen(Topic.EVENTS, self._hear)

    @asynccontextmanager
    async def listening(self, listener: Listener) -> AsyncIterator[None]:
        """Call `listener` with the ids of runs that have news, until the end of the block."""
        self._listeners.add(listener)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again_and_again(), name="live feeds' look")
        try:
            yield
        finally:
            self._listeners.discard(listener)
            if not self._listeners and (looking := self._looking) is not None:
                self._looking = None
                looking.cancel()
                await asyncio.wait([looking])

    def hear_of(self, run_id: str) -> None:
        """Take note of a run that this process has just accepted, which no bell is rung for."""
        if self._listeners:
            self._tell({run_id})

    def _hear(self, hint: JSONValue) -> None:
        if self._listeners:
            self._tell({run_id for run_id, _ in cast(list[tuple[str, int]], hint)})

    def _tell(self, run_ids: set[str]) -> None:
        """Pass news on; to tell of none is allowed."""
        for listener in tuple(self._listeners):
            listener(run_ids)

    async def _look_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        known: dict[str, int] | None = None
        looked = datetime.now(UTC)
        while True:
            begun, made_since = loop.time(), looked - _OVERLAP
            looked = datetime.now(UTC)
            try:
                found = await whole(self._look(known or {}, made_since))
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("live.outage", error=str(error).partition("\n")[0])
            else:
                first = first_id("run", made_since)
                # At the first look older runs may have stood so for long: it only takes note of them.
                known = {run["id"]: run["last_seq"] for run in found if run["id"] < first} if known is None else known
                self._tell({run["id"] for run in found if known.get(run["id"]) != run["last_seq"]})
                known = {
                    run["id"]: run["last_seq"]
                    for run in found
                    if run["id"] >= first or not RunStatus(run["status"]).terminal
                }
            usual = _LOOK_WITH_BELL if self._bell.live else _LOOK_WITHOUT_BELL
            await asyncio.sleep(max(usual, (loop.time() - begun) / _LOOK_SHARE))

    async def _look(self, known: Iterable[str], made_since: datetime) -> list[RowMapping]:
        """Read where runs stand that are under way, that are new, and that are neither any more but were."""
        async with self._store.read() as connection:

            async def read(which: ColumnElement[bool]) -> Sequence[RowMapping]:
                query = select(runs.c.id, runs.c.last_seq, runs.c.status).where(which)
                return (await connection.execute(query)).mappings().all()

            found = [*await read(_QUEUED), *await read(_RUNNING), *await read(runs.c.id >= first_id("run", made_since))]
            there = {run["id"] for run in found}
            gone = [run for run in known if run not in there]
            for start in range(0, len(gone), _BATCH):
                found += await read(runs.c.id.in_(gone[start : start + _BATCH]))
        return found


async def whole(query: Coroutine[Any, Any, T]) -> T:
    """Await a query to its end even if this is cancelled meanwhile: one cut short would keep its connection."""
    running = asyncio.create_task(query)
    try:
        return await asyncio.shield(running)
    finally:
        await asyncio.wait([running])
