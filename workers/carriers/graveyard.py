"""Where unreadable messages of a Kafka lane are kept, with the reason: `<topic>.dead`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import MessageSizeTooLargeError

from dispatch.queues.kafka_client import KAFKA_ERRORS, connection_options, dead_topic_of
from dispatch.store.dead_messages import DeadMessage
from schemas.errors import Unavailable
from schemas.settings import Settings
from workers.carriers.backoff import Backoff

log = structlog.get_logger()

#: What is kept of a message that, with its reason, would be larger than Kafka takes, in bytes.
_CUT = 10_000


class Graveyard:
    """Buries messages aside: the lane goes on meanwhile, but is committed only up to the first that is not buried."""

    def __init__(self, settings: Settings, keep: Callable[[DeadMessage], Awaitable[None]]) -> None:
        """`keep` puts a message where an operator sees it without asking Kafka."""
        self._settings = settings
        self._keep = keep
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._burials: set[asyncio.Task[None]] = set()

    def bury(self, record: ConsumerRecord[Any, Any], *, reason: str, then: Callable[[], object]) -> None:
        """Keep a message, trying until Kafka has it, and call `then`."""
        log.error(
            "message.unreadable", topic=record.topic, partition=record.partition, offset=record.offset, why=reason
        )
        task = asyncio.create_task(self._bury(record, reason, then), name="burial")
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def aclose(self) -> None:
        """Give up on burials under way: their messages are not committed, and will be read again."""
        self._closing.set()
        for task in self._burials:
            task.cancel()
        if self._burials:
            await asyncio.wait(self._burials)
        if self._producer is not None:
            await self._producer.stop()

    async def _bury(self, record: ConsumerRecord[Any, Any], reason: str, then: Callable[[], object]) -> None:
        backoff = Backoff("kafka", topic=dead_topic_of(record.topic))
        value, headers = record.value or b"", _headers(record, reason)
        message = DeadMessage(carrier="kafka", lane=record.topic, body=value, reason=reason)
        while True:
            try:
                producer = await self._open()
                await producer.send_and_wait(dead_topic_of(record.topic), value, key=record.key, headers=headers)
                await self._keep(message)
            except MessageSizeTooLargeError:
                value, headers = value[:_CUT], [*headers, ("cut_to_bytes", str(_CUT).encode())]
            except (*KAFKA_ERRORS, Unavailable) as error:
                await backoff.wait(error, unless=self._closing)
            else:
                then()
                return

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(**connection_options(self._settings), enable_idempotence=True)
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer


def _headers(record: ConsumerRecord[Any, Any], reason: str) -> list[tuple[str, bytes]]:
    return [
        ("reason", reason.encode()),
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
    ]
