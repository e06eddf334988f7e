"""What Celery sees of SQS and Kafka: a boot step, a pool that owns the source, and a consumer that reads no lane."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any

import structlog
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from kombu import Consumer

from schemas.errors import FloError
from schemas.job import Job
from schemas.run import RunStatus
from workers.carriers.intake import Intake
from workers.carriers.source import Source
from workers.consumer import JobConsumer, JobReceipt
from workers.pool import LoopPool

log = structlog.get_logger()


class CarriedPool(LoopPool):
    """The pool, with a carrier's source on its loop. It works whether or not Celery's own broker is there."""

    @staticmethod
    def open_source(intake: Intake) -> Source:
        """Make the source; called in the loop's thread."""
        raise NotImplementedError

    _intake: Intake
    _source: Source | None = None
    _leaving: Future[None] | None = None

    def fetch(self, consumer: JobConsumer) -> None:
        """Start the source. `consumer` is told what becomes of each job."""
        try:
            self._source = self._thread.call(self._open_source(consumer))
        except FloError as error:
            print(f"flo worker: {error}", file=sys.stderr)
            raise WorkerShutdown(2) from None

    def on_close(self) -> None:
        if self._source is not None and self._leaving is None:
            # First, so that nothing more is offered to a dispatcher that takes nothing more.
            self._thread.loop.call_soon_threadsafe(self._intake.stop)
            self._leaving = self._thread.submit(self._source.aclose())
        super().on_close()

    def on_stop(self) -> None:
        if self._leaving is not None and (error := self._leaving.exception()) is not None:
            log.error("carrier.left_badly", error=repr(error))
        self._source = self._leaving = None
        super().on_stop()

    async def _open_source(self, consumer: JobConsumer) -> Source:
        if self._assembly is None:
            raise FloError("the worker is not open")
        self._intake = Intake(
            self._assembly.dispatcher, lambda job: CarriedReceipt(job, consumer), self._assembly.morgue.keep
        )
        source = self.open_source(self._intake)
        await source.start()
        return source


class CarrierStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the source once the pool is up. A step of the worker, so that Celery's reconnects leave it alone."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        worker.pool.fetch(worker.consumer)

    def stop(self, worker: Any) -> None:
        """The pool stops it, between its last claim and its drain."""

    terminate = stop


class LanesElsewhere(Consumer):  # type: ignore[misc]
    """Names the lanes, for `inspect active_queues`, and reads none of them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, auto_declare=False, **options)

    def consume(self, no_ack: bool | None = None) -> None:
        pass


class CarriedReceipt(JobReceipt):
    """Tells Celery of a job whose message its carrier acknowledges by itself."""

    __slots__ = ()

    def __init__(self, job: Job, consumer: JobConsumer) -> None:
        super().__init__(job, _Acknowledged, consumer)

    def decided(self, claimed: bool) -> None:
        # While Celery looks for its broker, its thread hears nothing, and unread notices would pile up.
        if self._consumer.connection is not None:
            super().decided(claimed)

    def finished(self, status: RunStatus | None) -> None:
        if self._consumer.connection is not None:
            super().finished(status)


class _Acknowledged:
    """Stands for the message."""

    @staticmethod
    def ack() -> None:
        pass
