"""The Celery worker: its app, its pool, its consumer, and the command that starts it."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from datetime import timedelta

import structlog
from celery.exceptions import SecurityWarning

from dispatch.leases import WorkerIdentity
from dispatch.queues.celery_app import FAST_REDIS, LANES, control_url, make_celery
from dispatch.telemetry.logs import configure_logs
from schemas.ids import new_id
from schemas.settings import Settings
from workers.assembly import Assembly
from workers.carriers.source import OpenSource, source_for
from workers.carriers.step import CarriedPool, CarrierStep, LanesElsewhere
from workers.consumer import JobConsumer
from workers.pool import LoopPool

log = structlog.get_logger()


def serve(
    settings: Settings,
    *,
    name: str | None = None,
    lanes: tuple[str, ...] = LANES,
    group: str | None = None,
    concurrency: int | None = None,
    drain: timedelta = timedelta(seconds=30),
) -> int:
    """Work until told to stop; answer the exit code. SIGTERM drains, a second one or SIGQUIT does not wait."""
    configure_logs(settings)
    slots = concurrency or settings.max_concurrency
    queues = tuple(f"{lane}.{group}" if group else lane for lane in lanes)
    hostname = f"{name or f'flo-{os.getpid()}'}@{socket.gethostname()}"
    identity = WorkerIdentity(id=new_id("wrk"), hostname=hostname, lanes=queues, concurrency=slots)

    def assemble(concurrency: int) -> Assembly:
        return Assembly(settings, identity)

    # None for Redis: there, Celery's own consumer reads the lanes.
    open_source = source_for(settings, queues)
    pool = _pool(assemble, open_source)
    pool.drain = drain
    # Celery fears root because of pickle; Flo takes JSON only, and a sandbox may need root to be set up.
    warnings.simplefilter("ignore", SecurityWarning)
    app = make_celery(settings, transport=FAST_REDIS)
    if open_source is not None:
        app.steps["worker"].add(CarrierStep)
        app.amqp.Consumer = LanesElsewhere
    heard = control_url(settings) is not None
    if not heard:
        missing = "Flower, remote control and live hints are off; runs are executed all the same"
        log.warning("events.off", reason="FLO_EVENTS_URL names no Redis", missing=missing)
    worker = app.Worker(
        hostname=hostname,
        pool=pool,
        consumer_cls=JobConsumer,
        concurrency=slots,
        prefetch_multiplier=2,
        queues=queues,
        task_events=heard,
        without_heartbeat=not heard,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
        loglevel="WARNING",
    )
    log.info("worker.started", worker=identity.id, hostname=hostname, lanes=queues, concurrency=slots)
    worker.start()
    return int(worker.exitcode or 0)


def _pool(assemble: Callable[[int], Assembly], open_source: OpenSource | None) -> type[LoopPool]:
    if open_source is None:
        return type("Pool", (LoopPool,), {"assemble": staticmethod(assemble)})
    return type("Pool", (CarriedPool,), {"assemble": staticmethod(assemble), "open_source": staticmethod(open_source)})
