"""Celery's consumer, with the shortest way from a message to the dispatcher.

Stock Celery wraps each message in promises, a Request and a traced function call. A job needs none of that: its
message is read, handed over, and acknowledged once the claim is decided. The states that `inspect` and Flower show
are kept here, in Celery's thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import structlog
from celery.worker import state
from celery.worker.consumer import Consumer
from pydantic import ValidationError

from dispatch.store.dead_messages import DeadMessage
from schemas.job import Job
from schemas.json import loads_own
from schemas.run import RunStatus
from workers.pool import LoopPool

log = structlog.get_logger()

#: Seconds that worker events gather before they are sent in one message: soon enough for eyes on a dashboard.
_EVENTS_EVERY = 0.1
#: Worker events that are sent at once, should so many gather.
_EVENTS_AT_MOST = 2000
#: Seconds between two jobs whose events are sent although nobody heard the last ones: someone may listen by now.
_ASK_EVERY = 0.2
#: Seconds before a broker that is away is tried again; the pause grows by as much each time, up to the longest. Celery
#: waits 2, 4, 6 s and so on, and jobs wait with it.
_AGAIN = 0.25
_AGAIN_MOST = 3.0


class JobConsumer(Consumer):  # type: ignore[misc]
    """Reads jobs from the lanes."""

    pool: LoopPool
    _flush_is_due = False
    _asked_at = 0.0

    def ensure_connected(self, connection: Any) -> Any:
        """Connect to the broker, however long it is away."""

        def tell(error: Exception, pause: float) -> None:
            log.warning("broker.away", broker=connection.as_uri(), error=str(error), again_in_s=pause)

        self.first_connection_attempt = False
        return connection.ensure_connection(
            tell, callback=state.maybe_shutdown, interval_start=_AGAIN, interval_step=_AGAIN, interval_max=_AGAIN_MOST
        )

    def on_ready(self) -> None:
        super().on_ready()
        if self.event_dispatcher is not None:
            self.event_dispatcher.buffer_limit = _EVENTS_AT_MOST

    def shutdown(self) -> None:
        # What the drained runs had to say.
        self._flush_events()
        super().shutdown()

    def on_send_event_buffered(self) -> None:
        """Celery would send what has gathered on every turn of the hub; for thousands of short jobs that is a lot."""
        if self.hub and not self._flush_is_due:
            self._flush_is_due = True
            self.hub.call_later(_EVENTS_EVERY, self._flush)

    def wants_events(self) -> bool:
        """Tell whether the events of a job that begins now are to be sent: in a broadcast, those unheard are lost."""
        events = self.event_dispatcher
        if events is None or not events.enabled:
            return False
        if getattr(events.producer.channel, "is_heard", True):
            return True
        now = time.monotonic()
        if now - self._asked_at < _ASK_EVERY:
            return False
        self._asked_at = now
        return True

    def _flush(self) -> None:
        self._flush_is_due = False
        self._flush_events()

    def create_task_handler(self, promise: Any = None) -> Callable[[Any], None]:
        send = self.pool.crossing.send

        def on_message(message: Any) -> None:
            try:
                job = read_job(message)
            except (ValidationError, ValueError, LookupError, TypeError) as error:
                # A hint at most: its run, if there is one, is in SQL and will be published again.
                self.pool.bury(_dead(message, error), then=message.ack)
                return
            send((job, JobReceipt(job, message, self)))

        return on_message


def _dead(message: Any, error: Exception) -> DeadMessage:
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode(errors="replace")
    lane = str(message.delivery_info.get("routing_key") or "?")
    return DeadMessage(carrier="redis", lane=lane, body=body, reason=f"not a job ({type(error).__name__}: {error})")


def read_job(message: Any) -> Job:
    """Read the job in a Celery task message. Raises ValueError and its kin for anything else."""
    arguments = loads_own(message.body)[1]
    job = Job.model_validate(arguments["job"])
    if message.headers.get("task") != job.kind.task_name:
        raise ValueError(f"task {message.headers.get('task')!r} carries a job of kind {job.kind}")
    return job


class JobReceipt:
    """One message, from delivery to the end of its attempt. Also what Celery keeps as the request."""

    __slots__ = (
        "__weakref__", "_consumer", "_is_told", "_message", "_started", "eventer", "hostname", "id", "job", "name",
        "worker_pid",
    )  # fmt: skip

    acknowledged = True
    eta = None

    def __init__(self, job: Job, message: Any, consumer: JobConsumer) -> None:
        self.job = job
        self.id = job.task_id
        self.name = job.kind.task_name
        self.hostname = consumer.hostname
        self.worker_pid = os.getpid()
        #: Celery puts its new event dispatcher here after a reconnect; not to find the place would end the worker.
        self.eventer: Any = None
        self._message = message
        self._consumer = consumer
        self._started = 0.0
        #: Its beginning was told, so its end will be.
        self._is_told = False

    def decided(self, claimed: bool) -> None:
        self._consumer.pool.crossing.tell(self._begin if claimed else self._message.ack)

    def finished(self, status: RunStatus | None) -> None:
        self._consumer.pool.crossing.tell(lambda: self._end(status))

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Describe the job for `inspect active`."""
        return {
            "id": self.id,
            "name": self.name,
            "args": [],
            "kwargs": {"app": self.job.app, "run": self.job.run_id},
            "type": self.name,
            "hostname": self.hostname,
            "time_start": self._started,
            "acknowledged": True,
            "delivery_info": {"routing_key": self.job.queue, "priority": self.job.priority},
            "worker_pid": self.worker_pid,
        }

    def _begin(self) -> None:
        self._message.ack()
        self._started = time.time()
        state.task_reserved(self)
        state.task_accepted(self)
        self._is_told = self._consumer.wants_events()
        if not self._is_told:
            return
        self._send(
            "task-received",
            name=self.name,
            args="()",
            kwargs=repr({"app": self.job.app, "run": self.job.run_id}),
            retries=self.job.attempt - 1,
            eta=None,
            expires=None,
            root_id=self.id,
            parent_id=None,
        )
        self._send("task-started")

    def _end(self, status: RunStatus | None) -> None:
        # Celery need not remember it as done: a doubled message finds that in SQL.
        state.task_ready(self, successful=False)
        if not self._is_told:
            return
        runtime = time.time() - self._started
        if status is RunStatus.SUCCEEDED:
            self._send("task-succeeded", result=repr(str(status)), runtime=runtime)
        elif status is RunStatus.RUNNING:
            self._send("task-succeeded", result="'handed on'", runtime=runtime)
        elif status is RunStatus.CANCELLED:
            self._send("task-revoked", terminated=True, signum=None, expired=False)
        elif status in (RunStatus.QUEUED, RunStatus.WAITING, None):
            self._send("task-retried", exception=f"run({status or 'lost'})", traceback="")
        else:
            self._send("task-failed", exception=f"run({status})", traceback="")

    def _send(self, kind: str, **fields: Any) -> None:
        events = self._consumer.event_dispatcher
        if events is not None and events.enabled:  # it may have gone since
            events.send(kind, uuid=self.id, **fields)
