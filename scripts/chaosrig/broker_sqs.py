"""SQS: moto's server, which keeps queues and messages in memory only."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import httpx

from dispatch.queues.sqs_client import BATCH, Entry, SqsClient
from schemas.errors import Unavailable
from schemas.settings import load_settings
from scripts.chaosrig.brokers import own_environment
from tests import servers
from tests.carriers import NO_REDIS

_LANE = "flow"


class SqsBroker:
    def __init__(self) -> None:
        self._server = servers.SqsServer(servers.free_port())
        self.environment = {**self._server.environment, "ASYNC_EXECUTION_BACKEND": "sqs", "REDIS_URL": NO_REDIS}
        own_environment(self.environment)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def wipe(self) -> None:
        async with httpx.AsyncClient() as client:
            (await client.post(f"{self.environment['AWS_ENDPOINT_URL']}/moto-api/reset")).raise_for_status()

    async def double(self) -> None:
        sqs = SqsClient(load_settings(self.environment), threads=2)
        try:
            found = await sqs.receive(_LANE, most=BATCH, wait=0, hidden=0)
            if found:
                await sqs.send(_LANE, _entries(found))
        except Unavailable:
            pass  # a queue that has just been lost has nothing to double
        finally:
            await sqs.aclose()

    async def shuffle(self, chance: Random) -> None:
        sqs = SqsClient(load_settings(self.environment), threads=2)
        try:
            found = await sqs.receive(_LANE, most=BATCH, wait=0, hidden=10)
            chance.shuffle(found)
            if found:
                await sqs.send(_LANE, _entries(found))
                await sqs.delete(_LANE, [message["ReceiptHandle"] for message in found])
        except Unavailable:
            pass
        finally:
            await sqs.aclose()


def _entries(found: list[dict[str, Any]]) -> list[Entry]:
    return [{"Id": str(number), "MessageBody": message["Body"]} for number, message in enumerate(found)]
