"""Connects to the carrier that ASYNC_EXECUTION_BACKEND names."""

from __future__ import annotations

from dispatch.queues.base import Queue
from dispatch.queues.redis_queue import RedisQueue
from schemas.errors import SettingsError, Unavailable
from schemas.settings import AsyncBackend, Settings


def open_queue(settings: Settings) -> Queue:
    """Make the sending side. Raises SettingsError or Unavailable, with the fix."""
    match settings.async_backend:
        case AsyncBackend.REDIS:
            return RedisQueue(settings.redis_url)
        case AsyncBackend.SQS:
            try:
                from dispatch.queues.sqs_queue import SqsQueue
            except ModuleNotFoundError as error:
                raise not_installed("SQS", error) from error
            return SqsQueue(settings)
        case AsyncBackend.KAFKA:
            try:
                from dispatch.queues.kafka_queue import KafkaQueue
            except ModuleNotFoundError as error:
                raise not_installed("Kafka", error) from error
            return KafkaQueue(settings)
        case other:
            raise SettingsError(
                f"ASYNC_EXECUTION_BACKEND is {other!s}, which this build can't carry; allowed: redis, sqs, kafka"
            )


def not_installed(carrier: str, error: ModuleNotFoundError) -> Unavailable:
    """Word the mistake of a carrier without its package."""
    extra = carrier.lower()
    return Unavailable(f"{carrier} needs the package {error.name!r}: install flo[{extra}], or uv sync --extra {extra}")
