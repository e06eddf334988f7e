"""The Kafka source: one membership in the consumer group, and what its partitions have delivered.

Fetching, committing and Kafka's heartbeat are tasks of their own: a long run delays none of them. An offset is
committed once every message below it is decided. Partitions that go to another worker take their unclaimed messages
along; what both have seen is claimed once, in SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient

from dispatch.queues.envelope import Unreadable, open_envelope
from dispatch.queues.kafka_client import (
    KAFKA_ERRORS,
    REQUEST_TIMEOUT_MS,
    connection_options,
    dead_topic_of,
    ensure_topics,
    topic_of,
    unavailable,
)
from schemas.errors import Unavailable
from schemas.job import Job
from schemas.settings import Settings
from workers.carriers.backoff import Backoff
from workers.carriers.graveyard import Graveyard
from workers.carriers.intake import Intake
from workers.carriers.watermark import Watermark

log = structlog.get_logger()

#: Pause between two commits, in seconds: messages decided in the meantime are committed together.
_COMMIT_EVERY = 0.2
#: Longest that a commit may hold up a rebalance or a stop, in seconds.
_LAST_COMMIT = 3.0
#: Longest wait for messages in one call, in milliseconds; a stop waits for it.
_POLL_MS = 500
#: The shortest that brokers allow unless told otherwise, in milliseconds.
_SHORTEST_SESSION_MS = 6_000
#: aiokafka leaves the group when nothing is polled for this long. Full slots are no reason: its heartbeat tells.
_NEVER_MS = 2**31 - 1
#: Pause between tries of aiokafka at a broker that is away, in milliseconds; each try writes a line to the log.
_RETRY_MS = 500


@dataclass(frozen=True, slots=True, eq=False)
class KafkaDelivery:
    """A fetched message."""

    job: Job
    offset: int
    mark: Watermark
    dirty: asyncio.Event

    def fresh(self) -> bool:
        return not self.mark.lost

    def settle(self) -> None:
        self.mark.decide(self.offset)
        self.dirty.set()


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc]
    """Fetches from one topic per lane."""

    def __init__(self, settings: Settings, queues: tuple[str, ...], intake: Intake) -> None:
        self._settings = settings
        self._options = connection_options(settings)
        self._topics = [topic_of(settings, queue) for queue in queues]
        self._intake = intake
        self._graveyard = Graveyard(settings, intake.bury)
        self._marks: dict[TopicPartition, Watermark] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._dirty = asyncio.Event()
        self._stopping = asyncio.Event()
        self._unclaimed_left = asyncio.Event()
        self._member: AIOKafkaConsumer | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="kafka")

    async def aclose(self) -> None:
        self._stopping.set()
        # Nobody is told of the unclaimed: they are not committed, so whoever gets the partition gets them.
        await self._intake.close()
        self._unclaimed_left.set()
        if self._running is not None:
            await self._running
        await self._graveyard.aclose()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Let go of partitions: commit what is decided, drop what is unclaimed."""
        await self._commit(most=_LAST_COMMIT)
        for partition in revoked:
            if (mark := self._marks.pop(partition, None)) is not None:
                mark.lost = True
            self._committed.pop(partition, None)
        self._intake.purge()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._marks = {partition: Watermark() for partition in assigned}
        log.info("kafka.assigned", partitions=len(self._marks))

    async def _run(self) -> None:
        backoff = Backoff("kafka")
        while not self._stopping.is_set():
            try:
                await self._be_member(backoff)
            except Unavailable as error:
                await backoff.wait(error, unless=self._stopping)
            except KAFKA_ERRORS as error:
                await backoff.wait(unavailable(self._settings, error), unless=self._stopping)

    async def _be_member(self, backoff: Backoff) -> None:
        """Join the group, work, and leave it, at a stop or at an error that aiokafka can't mend by itself."""
        await self._make_topics()
        session = max(_SHORTEST_SESSION_MS, int(self._settings.lease_seconds * 1000))
        consumer = AIOKafkaConsumer(
            **{**self._options, "request_timeout_ms": session + REQUEST_TIMEOUT_MS},
            group_id=self._settings.kafka_consumer_group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 4,
            max_poll_interval_ms=_NEVER_MS,
            retry_backoff_ms=_RETRY_MS,
        )
        consumer.subscribe(self._topics, listener=self)
        self._member = consumer
        committing: asyncio.Task[None] | None = None
        try:
            await consumer.start()
            backoff.over()
            committing = asyncio.create_task(self._keep_committing(), name="kafka commits")
            await self._fetch(consumer)
            await self._unclaimed_left.wait()
        finally:
            if committing is not None:
                committing.cancel()
                await asyncio.wait([committing])
            await self._commit(most=_LAST_COMMIT)
            self._forget()
            self._member = None
            await consumer.stop()

    async def _make_topics(self) -> None:
        admin = AIOKafkaAdminClient(**self._options)
        try:
            await admin.start()
            await ensure_topics(admin, self._settings, [*self._topics, *map(dead_topic_of, self._topics)])
        finally:
            await admin.close()

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            if not self._intake.room(ahead=self._intake.slots):
                consumer.pause(*consumer.assignment())
            room = await self._intake.wait_for_room(ahead=self._intake.slots)
            if not room:
                return
            consumer.resume(*(consumer.paused() & consumer.assignment()))
            found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=room)
            for partition, records in found.items():
                self._take(partition, records)

    def _take(self, partition: TopicPartition, records: list[ConsumerRecord[Any, Any]]) -> None:
        if (mark := self._marks.get(partition)) is None:
            return  # revoked in between
        deliveries = []
        for record in records:
            if not mark.deliver(record.offset):
                # Offsets never go back within one log: the topic was deleted and made anew.
                log.warning("kafka.log_began_anew", topic=partition.topic, partition=partition.partition)
                mark = self._marks[partition] = Watermark()
                mark.deliver(record.offset)
                self._committed.pop(partition, None)
            try:
                job = open_envelope(record.value or b"")
            except Unreadable as error:
                self._graveyard.bury(record, reason=str(error), then=partial(self._decide, mark, record.offset))
            else:
                deliveries.append(KafkaDelivery(job, record.offset, mark, self._dirty))
        self._intake.put(deliveries)

    def _decide(self, mark: Watermark, offset: int) -> None:
        mark.decide(offset)
        self._dirty.set()

    async def _keep_committing(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._commit()
            await asyncio.sleep(_COMMIT_EVERY)

    async def _commit(self, *, most: float | None = None) -> None:
        """Tell Kafka how far each partition is done. What it does not hear is only delivered again."""
        offsets = {
            partition: mark.position
            for partition, mark in self._marks.items()
            if mark.position is not None and mark.position != self._committed.get(partition)
        }
        if not offsets or self._member is None:
            return
        try:
            async with asyncio.timeout(most):
                await self._member.commit(offsets)
        except KAFKA_ERRORS as error:
            log.warning("kafka.not_committed", partitions=len(offsets), error=str(error) or type(error).__name__)
            self._dirty.set()
        else:
            self._committed.update(offsets)

    def _forget(self) -> None:
        for mark in self._marks.values():
            mark.lost = True
        self._marks = {}
        self._committed = {}
        self._intake.purge()
