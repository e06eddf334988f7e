"""What a live feed has yet to send: gathers hints about runs, and reads what is new about them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Select, and_, or_, select

from dispatch.feed import event_of
from dispatch.store.blobs import unpacked
from dispatch.store.runs import run_events, runs
from dispatch.store.session import Store, is_outage
from scheduler.live import whole
from schemas.run import RunEvent

log = structlog.get_logger()

#: How far back a feed may begin.
LONGEST_BACK = timedelta(days=1)
#: Runs asked about in one statement, and events that it reads at most.
_BATCH = 200
_MOST_EVENTS = 1000
#: Runs of which a feed remembers what it has sent; of one forgotten it may send events twice.
_REMEMBERED = 10_000
#: Runs with news that nobody has read. A reader with more to come is too slow, and is better told so.
_MOST_BEHIND = 20_000
#: Seconds between two tries while the database is away.
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and whose it is."""

    app: str
    flow: str
    event: RunEvent


class News:
    """One feed's place in the events of an app, or of all apps (None). Reading never slows a run: it only reads SQL.

    Events come at least once, those of one run in order: who must not see one twice goes by its run and number.
    """

    def __init__(self, store: Store, *, app: str | None, since: datetime) -> None:
        self._store = store
        self._app = app
        self._since = since
        self._sent: OrderedDict[str, int] = OrderedDict()
        self._hinted: set[str] = set()
        self._heard = asyncio.Event()
        #: Set when more has happened than will be kept for this reader.
        self.overrun = asyncio.Event()

    def hear(self, run_ids: Iterable[str]) -> None:
        """Take note that these runs have news."""
        self._hinted.update(run_ids)
        if len(self._hinted) > _MOST_BEHIND:
            self.overrun.set()
        self._heard.set()

    async def begin(self) -> None:
        """Find the runs that something happened to since the beginning of this feed."""
        query = select(runs.c.id).where(or_(runs.c.finished_at.is_(None), runs.c.finished_at >= self._since))
        if self._app is not None:
            query = query.where(runs.c.app == self._app)
        self.hear(await whole(self._ids(query.order_by(runs.c.id))))

    async def next(self) -> list[Told]:
        """Wait for hints, then read the events that they speak of; none when there were others before."""
        await self._heard.wait()
        asked = [self._hinted.pop() for _ in range(min(_BATCH, len(self._hinted)))]
        if not asked:
            self._heard.clear()
            return []
        try:
            told = await whole(self._read(asked))
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("live.outage", error=str(error).partition("\n")[0])
            self._hinted.update(asked)
            await asyncio.sleep(_PAUSE)
            return []
        if len(told) == _MOST_EVENTS:
            self._hinted.update(asked)  # there may be more
        if not self._hinted:
            self._heard.clear()
        return told

    async def _ids(self, query: Select[Any]) -> list[str]:
        async with self._store.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def _read(self, asked: list[str]) -> list[Told]:
        new = or_(*(and_(run_events.c.run_id == run, run_events.c.seq > self._sent.get(run, 0)) for run in asked))
        query = (
            select(run_events, runs.c.app, runs.c.flow)
            .join(runs, runs.c.id == run_events.c.run_id)
            .where(new, run_events.c.time >= self._since)
            .order_by(run_events.c.run_id, run_events.c.seq)
            .limit(_MOST_EVENTS)
        )
        if self._app is not None:
            query = query.where(runs.c.app == self._app)
        async with self._store.read() as connection:
            rows = await unpacked(connection, (await connection.execute(query)).mappings().all())
        told = [Told(row["app"], row["flow"], event_of(row)) for row in rows]
        for one in told:
            self._sent[one.event.run_id] = one.event.seq
            self._sent.move_to_end(one.event.run_id)
        while len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)
        return by_time(told)


def by_time(told: Iterable[Told]) -> list[Told]:
    """Mix the events of several runs by their times, and keep those of one run in order whatever its clocks say."""
    latest: dict[str, datetime] = {}
    placed: list[tuple[datetime, Told]] = []
    for one in told:
        run, time = one.event.run_id, one.event.happening.time
        latest[run] = max(time, latest.get(run, time))
        placed.append((latest[run], one))
    return [one for _, one in sorted(placed, key=lambda place: place[0])]
