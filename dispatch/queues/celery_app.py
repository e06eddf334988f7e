"""The Celery app that workers, Flower and control commands share. Results are in SQL, so there is no result backend."""

from __future__ import annotations

from celery import Celery
from kombu import Queue as KombuQueue
from kombu.serialization import register
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils import json as kombu_json

from schemas.job import JobKind
from schemas.json import dumps
from schemas.settings import AsyncBackend, Settings

#: Kombu's name for `redis_transport.JobTransport`.
FAST_REDIS = "flo-redis"
TRANSPORT_ALIASES[FAST_REDIS] = "dispatch.queues.redis_transport:JobTransport"
#: Kombu's name for `no_broker.NoBroker`.
_NO_BROKER = "flo-none"
TRANSPORT_ALIASES[_NO_BROKER] = "dispatch.queues.no_broker:NoBroker"

#: Celery's JSON, written by a faster encoder; every reader takes it for plain JSON.
_FAST_JSON = "flo-json"
register(_FAST_JSON, dumps, kombu_json.loads, content_type="application/json", content_encoding="utf-8")

#: Seconds between checks of the connections that wait for messages: a half-open one is noticed and dropped.
_HEALTH_CHECK = 5
#: Longest wait for an answer that is due at once, in seconds. Without it, one half-open connection of the pool (events,
#: batches, remote control) would hold Celery's only thread for ever: the worker would live and consume nothing.
_ANSWER = 5

LANES = tuple(str(kind) for kind in JobKind)


def control_url(settings: Settings) -> str | None:
    """Where worker events and remote control go; None when the jobs are not on Redis and no other Redis is named."""
    if settings.async_backend in (AsyncBackend.SQS, AsyncBackend.KAFKA):
        return settings.events_url
    return settings.events_url or settings.redis_url


def make_celery(settings: Settings, *, transport: str | None = None) -> Celery:
    """Make the app; `transport` names another kombu transport than the URL's own (`FAST_REDIS` for workers)."""
    broker = control_url(settings)
    app = Celery("flo", broker=broker or f"{_NO_BROKER}://localhost", set_as_current=False)
    if broker is None:
        transport = None
    app.conf.update(
        worker_enable_remote_control=broker is not None,
        broker_transport=transport,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "health_check_interval": _HEALTH_CHECK,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "socket_timeout": _ANSWER,
            "retry_on_timeout": False,
        },
        # JSON only: a message can't make a worker unpickle anything.
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer=_FAST_JSON,
        task_ignore_result=True,
        task_default_queue=str(JobKind.FLOW),
        task_queues=[KombuQueue(lane) for lane in LANES],
        task_create_missing_queues=True,
        worker_send_task_events=True,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # A claim is decided in milliseconds and the message acknowledged then; a long run holds no message.
        task_acks_late=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,
    )
    for kind in JobKind:
        app.task(name=kind.task_name, bind=False)(_not_here)
    return app


def _not_here(job: dict[str, object]) -> None:
    raise RuntimeError("jobs are executed by `flo worker`; a plain Celery worker can't run them")
