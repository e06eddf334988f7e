"""The Kafka carrier: one topic per lane, an idempotent producer that waits for all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from dispatch.queues.kafka_client import (
    KAFKA_ERRORS,
    REQUEST_TIMEOUT_MS,
    connection_options,
    dead_topic_of,
    ensure_topics,
    topic_of,
    unavailable,
)
from dispatch.queues.redis_queue import envelope
from schemas.errors import Unavailable
from schemas.job import Job
from schemas.settings import KafkaKey, Settings

log = structlog.get_logger()

#: Longest that one call of the port may take, in seconds.
_PATIENCE = REQUEST_TIMEOUT_MS / 1000 + 2
#: Tries at a question that a broker which has just started can't answer yet, and the pause between, in seconds.
_TRIES = 20
_PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class _Clients:
    """aiokafka has one client per purpose; each connects by itself, and again after an outage."""

    producer: AIOKafkaProducer
    admin: AIOKafkaAdminClient
    #: Member of no group: it only asks for the ends of partitions.
    reader: AIOKafkaConsumer

    async def start(self) -> None:
        await self.admin.start()
        await self.producer.start()
        await self.reader.start()

    async def stop(self) -> None:
        await self.producer.stop()
        await self.reader.stop()
        await self.admin.close()


class KafkaQueue:
    """Publishes to the topics that workers fetch from. Connects at first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._options = connection_options(settings)
        self._clients: _Clients | None = None
        self._topics: set[str] = set()
        self._opening = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def publish(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        async with self._asking() as kafka:
            await self._ensure(kafka, {job.queue for job in jobs})
            sent = [
                await kafka.producer.send(
                    topic_of(self._settings, job.queue), envelope(job).encode(), key=self._key(job)
                )
                for job in jobs
            ]
            await asyncio.gather(*sent)

    async def depth(self, queue: str) -> int:
        async with self._asking() as kafka:
            await self._ensure(kafka, {queue})
            topic = topic_of(self._settings, queue)
            [found] = await kafka.admin.describe_topics([topic])
            partitions = [TopicPartition(topic, one["partition"]) for one in found["partitions"]]
            begins = await kafka.reader.beginning_offsets(partitions)
            ends = await kafka.reader.end_offsets(partitions)
            done = await self._committed(kafka.admin, partitions)
        # What was deleted for its age is not waiting; an offset beyond the end is that of a topic made anew.
        return sum(max(0, ends[one] - max(begins[one], done.get(one, 0))) for one in partitions)

    async def ping(self) -> None:
        async with self._asking() as kafka:
            await kafka.admin.list_topics()

    async def aclose(self) -> None:
        self._drop()
        if self._stopping:
            await asyncio.wait(self._stopping)

    def _key(self, job: Job) -> bytes:
        return (job.app if self._settings.kafka_key is KafkaKey.APP else job.run_id).encode()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[_Clients]:
        """Give the clients for one call; what they raise is worded as Unavailable."""
        try:
            async with asyncio.timeout(_PATIENCE):
                yield await self._open()
        except KAFKA_ERRORS as error:
            # Topics may be what is gone.
            self._topics.clear()
            if not isinstance(error, KafkaError) or not error.retriable:
                # E.g. a producer whose number the broker no longer knows, or a connection that has fallen silent: the
                # next call begins anew.
                self._drop()
            raise unavailable(self._settings, error) from error

    def _drop(self) -> None:
        """Let go of the clients; they take their time to stop."""
        if self._clients is not None:
            task = asyncio.create_task(self._clients.stop(), name="kafka clients stop")
            self._clients = None
            self._stopping.add(task)
            task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._stopping.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("kafka.not_stopped", error=repr(error))

    async def _open(self) -> _Clients:
        async with self._opening:
            if self._clients is None:
                clients = _Clients(
                    AIOKafkaProducer(**self._options, acks="all", enable_idempotence=True, linger_ms=1),
                    AIOKafkaAdminClient(**self._options),
                    AIOKafkaConsumer(**self._options),
                )
                try:
                    await clients.start()
                except BaseException:
                    await clients.stop()
                    raise
                self._clients = clients
            return self._clients

    async def _ensure(self, kafka: _Clients, queues: set[str]) -> None:
        topics = {topic_of(self._settings, queue) for queue in queues} - self._topics
        if topics:
            await ensure_topics(kafka.admin, self._settings, [*topics, *map(dead_topic_of, topics)])
            self._topics |= topics

    async def _committed(
        self, admin: AIOKafkaAdminClient, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        for left in reversed(range(_TRIES)):
            try:
                found = await admin.list_consumer_group_offsets(
                    self._settings.kafka_consumer_group, partitions=partitions
                )
            except KafkaError as error:
                # A broker makes the topic of its groups' offsets when it is first asked for them.
                if not error.retriable or not left:
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                return {partition: one.offset for partition, one in found.items()}
        raise Unavailable("Kafka's group coordinator is not there")
