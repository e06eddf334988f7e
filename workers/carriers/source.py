"""The port on the receiving side of a carrier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from schemas.job import Job
from schemas.settings import AsyncBackend, Settings
from workers.carriers.intake import Intake


class Delivery(Protocol):
    """One message, as its carrier has delivered it."""

    @property
    def job(self) -> Job: ...

    def fresh(self) -> bool:
        """Tell whether the message is still this worker's; otherwise the carrier gives it to another."""

    def settle(self) -> None:
        """Acknowledge it, sooner or later: its claim is decided."""


class Source(Protocol):
    """Fetches messages into an intake. A carrier that is away is waited for, and said so."""

    async def start(self) -> None:
        """Begin to fetch; does not wait for the carrier."""

    async def aclose(self) -> None:
        """Fetch nothing more, acknowledge what is decided, give the rest back, and leave."""


#: Makes the source of a worker around its intake.
OpenSource = Callable[[Intake], Source]


def source_for(settings: Settings, queues: tuple[str, ...]) -> OpenSource | None:
    """Choose by ASYNC_EXECUTION_BACKEND; None when Celery itself reads the lanes. Raises Unavailable with the fix."""
    try:
        match settings.async_backend:
            case AsyncBackend.SQS:
                from workers.carriers.sqs import SqsSource

                return lambda intake: SqsSource(settings, queues, intake)
            case AsyncBackend.KAFKA:
                from workers.carriers.kafka import KafkaSource

                return lambda intake: KafkaSource(settings, queues, intake)
            case _:
                return None
    except ModuleNotFoundError as error:
        from dispatch.queues.choose import not_installed

        carrier = "SQS" if settings.async_backend is AsyncBackend.SQS else "Kafka"
        raise not_installed(carrier, error) from error
