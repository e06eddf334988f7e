"""Kafka: an Apache Kafka of one node, which keeps its log through a kill; losing a topic is its way to forget."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from random import Random

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests import servers
from tests.carriers import NO_REDIS

_TOPIC = "flo-flow"
_PARTITIONS = 6
#: Messages of each partition that are sent again.
_SOME = 20


class KafkaBroker:
    def __init__(self, folder: Path) -> None:
        subprocess.run(["scripts/kafka-jars"], check=True, stdout=subprocess.DEVNULL)
        self._server = servers.format_kafka(folder)
        self.environment = {
            "ASYNC_EXECUTION_BACKEND": "kafka",
            "KAFKA_BOOTSTRAP_SERVERS": self._server.bootstrap,
            "KAFKA_PARTITIONS": str(_PARTITIONS),
            # All runs are of one app: they are to reach all workers.
            "KAFKA_MESSAGE_KEY": "run",
            "REDIS_URL": NO_REDIS,
        }

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def wipe(self) -> None:
        """Delete the lane's topic; whoever misses it makes it anew, with offsets from zero."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._server.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics([_TOPIC])
        finally:
            await admin.close()

    async def double(self) -> None:
        await self._again(None)

    async def shuffle(self, chance: Random) -> None:
        """A log can't be put in another order, but its newest part can come once more, in disorder."""
        await self._again(chance)

    async def _again(self, chance: Random | None) -> None:
        found = await self._newest()
        if chance is not None:
            chance.shuffle(found)
        async with AIOKafkaProducer(bootstrap_servers=self._server.bootstrap) as producer:
            for key, value in found:
                await producer.send(_TOPIC, value, key=key)

    async def _newest(self) -> list[tuple[bytes | None, bytes | None]]:
        reader = AIOKafkaConsumer(bootstrap_servers=self._server.bootstrap, group_id=None)
        async with reader:
            numbers = await self._partitions()
            partitions = [TopicPartition(_TOPIC, number) for number in numbers]
            if not partitions:
                return []
            begins, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
            reader.assign(partitions)
            for one in partitions:
                reader.seek(one, max(begins[one], ends[one] - _SOME))
            records = await reader.getmany(timeout_ms=1000)
        return [(record.key, record.value) for some in records.values() for record in some]

    async def _partitions(self) -> list[int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._server.bootstrap)
        await admin.start()
        try:
            [found] = await admin.describe_topics([_TOPIC])
            return [one["partition"] for one in found["partitions"]]
        finally:
            await admin.close()
