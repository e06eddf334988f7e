"""The cron tick: due schedules become runs, each in the transaction that moves its schedule forward.

A crash leaves either both or neither. Two replicas that tick at once can't fire twice: only one of them moves the row,
and the run's idempotency key is its due time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.bell import Topic
from dispatch.store.release import request_cancels
from dispatch.store.runs import NewRun, insert_runs
from dispatch.store.triggers import (
    Due,
    advance_schedule,
    due_schedules,
    first_due,
    known_keys,
    live_runs,
)
from scheduler.cron import Overlap, Schedule, plan
from scheduler.event_config import ScheduleConfig
from scheduler.spine import Spine
from schemas.errors import Invalid
from schemas.job import Job
from schemas.run import Lane

log = structlog.get_logger()

#: Schedules in one transaction.
_BATCH = 100


@dataclass(frozen=True, slots=True)
class _Readable:
    due: Due
    config: ScheduleConfig
    schedule: Schedule


@dataclass(slots=True)
class _Harvest:
    """What a transaction leads to once it is committed."""

    jobs: list[Job]
    cancelled: list[str]


async def tick(spine: Spine, now: datetime | None = None) -> int:
    """Fire everything that is due; answer how many runs that made."""
    fired = 0
    after = ("", "")
    while True:
        moment = now or datetime.now(UTC)
        async with spine.store.read() as connection:
            due = await due_schedules(connection, moment, after=after, limit=_BATCH)
        if due:
            harvest = await _fire(spine, due, moment)
            spine.publisher.publish_soon(harvest.jobs)
            spine.figures.accepted.labels(str(Lane.RECURRING)).inc(len(harvest.jobs))
            for run_id in harvest.cancelled:
                spine.bell.ring(Topic.CANCEL, run_id)
            fired += len(harvest.jobs)
        if len(due) < _BATCH:
            return fired
        after = (due[-1].target.app, due[-1].target.event)


async def next_due(spine: Spine) -> datetime | None:
    """Tell when the tick has something to do again."""
    async with spine.store.read() as connection:
        return await first_due(connection)


async def _fire(spine: Spine, due: Sequence[Due], now: datetime) -> _Harvest:
    readable = [schedule for one in due if (schedule := _read(one)) is not None]
    broken = [one for one in due if one not in [schedule.due for schedule in readable]]
    harvest = _Harvest([], [])
    new: list[NewRun] = []
    async with spine.store.write() as connection:
        for one in broken:
            await advance_schedule(connection, one, next_at=None, fired_at=None)
        for schedule in readable:
            new.extend(await _decide(spine, connection, schedule, now, harvest))
        harvest.jobs.extend(await insert_runs(connection, new))
    return harvest


def _read(due: Due) -> _Readable | None:
    target = due.target
    try:
        config = ScheduleConfig.model_validate(target.config)
        return _Readable(due, config, config.schedule(anchor=target.created_at))
    except (Invalid, ValidationError) as error:
        # It was readable when it was saved, so it is Flo or the time zone database that has changed.
        log.error("schedule.unreadable", app=target.app, schedule=target.event, error=str(error))
        return None


async def _decide(
    spine: Spine, connection: AsyncConnection, one: _Readable, now: datetime, harvest: _Harvest
) -> list[NewRun]:
    target, config = one.due.target, one.config
    live = [] if config.overlap is Overlap.ALLOW else await live_runs(connection, target.app, target.event)
    decision = plan(
        one.schedule,
        due_at=one.due.next_at,
        now=now,
        catch_up=config.catch_up,
        overlap=config.overlap,
        live=bool(live),
    )
    fire = () if target.retired else decision.fire
    if decision.next_at == one.due.next_at:
        return []
    if not await advance_schedule(connection, one.due, next_at=decision.next_at, fired_at=fire[-1] if fire else None):
        return []
    if not fire:
        log.info("schedule.skipped", app=target.app, schedule=target.event, due_at=one.due.next_at.isoformat())
        return []
    if decision.cancel_previous:
        await request_cancels(connection, live, f'cancelled by the next run of the schedule "{target.event}"')
        harvest.cancelled.extend(live)
    keys = {f"flo:due:{moment.isoformat()}": moment for moment in fire}
    known = await known_keys(connection, target.app, target.event, list(keys))
    return [
        NewRun(
            app=target.app,
            flow=target.flow,
            version=target.version,
            event=target.event,
            lane=Lane.RECURRING,
            payload={**config.payload, "scheduled_for": moment.isoformat()},
            max_attempts=spine.settings.max_attempts,
            idempotency_key=key,
        )
        for key, moment in keys.items()
        if key not in known
    ]
