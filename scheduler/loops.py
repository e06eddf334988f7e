"""The scheduler process: each of its duties in its own loop, until the process is asked to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from dispatch.store.session import is_outage
from scheduler.duty import LASTS, Duty
from scheduler.reaper import call_waiting, reap_lost, republish_vanished
from scheduler.relay import relay
from scheduler.retention import Pruner
from scheduler.spine import Spine
from scheduler.tick import next_due, tick
from scheduler.waking import wake
from schemas.errors import FloError

log = structlog.get_logger()

#: Longest pause between two looks at the schedules: a new one, made in another process, waits no longer than this.
_LOOK = timedelta(milliseconds=500)
#: Shortest pause, while a schedule stays due because the run before it is not over.
_HELD = timedelta(milliseconds=100)

_RELAY = timedelta(milliseconds=250)
#: Longest pause between two looks for vanished messages, unless leases are shorter.
_REPUBLISH = timedelta(seconds=5)
#: Pause after a failure: the database or the broker is away.
_AFTER_FAILURE = timedelta(seconds=1)

Work = Callable[[], Awaitable[timedelta]]


async def run_duties(spine: Spine) -> None:
    """Do the scheduler's duties, whenever it is this process's turn, until `spine.stopping` is set."""
    # A scheduler and a worker that die together, as on one machine, are mended in little more than the one lease.
    duty = Duty(spine.store, "scheduler", lasts=min(LASTS, spine.settings.lease))

    async def cron() -> timedelta:
        await tick(spine)
        due = await next_due(spine)
        ahead = _LOOK if due is None else due - datetime.now(UTC)
        return min(_LOOK, ahead) if ahead > timedelta(0) else _HELD

    async def send() -> timedelta:
        await wake(spine.store, spine.bell)
        await relay(spine.store, spine.queue)
        return _RELAY

    async def reap() -> timedelta:
        await reap_lost(spine.store, lease=spine.settings.lease)
        await call_waiting(spine.store)
        return spine.settings.heartbeat

    async def republish() -> timedelta:
        # A worker that is lost takes messages along that it had not claimed: their runs wait no longer than its own.
        most = min(_REPUBLISH, spine.settings.lease / 2)
        await republish_vanished(spine.store, spine.queue, in_flight=most)
        return most

    works: dict[str, Work] = {
        "tick": cron,
        "relay": send,
        "reaper": reap,
        "republish": republish,
        "retention": Pruner(spine.store, spine.settings).prune,
    }
    async with asyncio.TaskGroup() as loops:
        for name, work in works.items():
            loops.create_task(_repeat(spine, duty, name, work), name=name)
    await duty.release()


async def _repeat(spine: Spine, duty: Duty, name: str, work: Work) -> None:
    while not spine.stopping.is_set():
        try:
            pause = await work() if await duty.mine() else _LOOK
        except Exception as error:  # one loop's failure must not end the others; it is tried again
            known = isinstance(error, FloError) or is_outage(error)
            log.log(
                logging.WARNING if known else logging.ERROR,
                "duty.failed",
                duty=name,
                error=(str(error) or repr(error)).splitlines()[0],
                exc_info=not known,
            )
            pause = _AFTER_FAILURE
        await _rest(spine, pause)


async def _rest(spine: Spine, pause: timedelta) -> None:
    try:
        async with asyncio.timeout(pause.total_seconds()):
            await spine.stopping.wait()
    except TimeoutError:
        return
