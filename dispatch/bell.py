"""Hints between processes: "something changed, look in SQL". A lost hint costs a moment, never a run."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from dispatch.coalesce import Coalescer
from schemas.json import JSONValue, dumps, loads

log = structlog.get_logger()

Listener = Callable[[JSONValue], None]

#: Pause before a listener connects again, in seconds: doubles while nothing answers.
_RECONNECT = 0.5
_RECONNECT_MOST = 5.0
#: Seconds without a word after which a listener asks whether Redis is still there; it has as long to answer.
_SILENCE = 5.0


class Topic(StrEnum):
    #: Run events are in SQL: `[[run_id, newest seq], ...]`.
    EVENTS = "events"
    #: A run is to be cancelled: its id.
    CANCEL = "cancel"


ALL_TOPICS = tuple(Topic)


class Bell(Protocol):
    """A best-effort broadcast to every process, this one included."""

    def ring(self, topic: Topic, hint: JSONValue) -> None:
        """Send a hint; never blocks and never fails."""

    def listen(self, topic: Topic, listener: Listener) -> None:
        """Call `listener` with each hint from now on; it must not block."""

    @property
    def live(self) -> bool:
        """Tell whether hints are expected to arrive; while not, look often."""

    async def aclose(self) -> None: ...


class LocalBell:
    """A bell within one process: the in-memory twin."""

    live = True

    def __init__(self) -> None:
        self._listeners: dict[Topic, list[Listener]] = defaultdict(list)

    def ring(self, topic: Topic, hint: JSONValue) -> None:
        for listener in self._listeners[topic]:
            listener(hint)

    def listen(self, topic: Topic, listener: Listener) -> None:
        self._listeners[topic].append(listener)

    async def aclose(self) -> None:
        self._listeners.clear()


class SilentBell:
    """A bell that nobody hears: without a Redis, followers look in SQL often."""

    live = False

    def ring(self, topic: Topic, hint: JSONValue) -> None:
        pass

    def listen(self, topic: Topic, listener: Listener) -> None:
        pass

    async def aclose(self) -> None:
        pass


class RedisBell:
    """A bell over Redis publish/subscribe; whatever rings in the same instant goes out in one pipeline.

    This process hears only of `topics`: what it has no use for need not be sent to it.
    """

    def __init__(self, url: str, *, topics: Sequence[Topic] = ALL_TOPICS, prefix: str = "flo:bell:") -> None:
        self._redis = Redis.from_url(url, socket_connect_timeout=5, socket_timeout=_SILENCE)
        self._topics = topics
        self._prefix = prefix
        self._listeners: dict[Topic, list[Listener]] = defaultdict(list)
        self._out: Coalescer[tuple[Topic, JSONValue], None] = Coalescer(self._send, most=500)
        self._ears: asyncio.Task[None] | None = None
        self.live = False

    def ring(self, topic: Topic, hint: JSONValue) -> None:
        self._out.submit((topic, hint))

    def listen(self, topic: Topic, listener: Listener) -> None:
        self._listeners[topic].append(listener)
        if self._ears is None and topic in self._topics:
            self._ears = asyncio.create_task(self._hear(), name="bell")

    async def aclose(self) -> None:
        if self._ears is not None:
            self._ears.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ears
        await self._out.settle()
        await self._redis.aclose()

    async def _send(self, hints: Sequence[tuple[Topic, JSONValue]]) -> Sequence[None]:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for topic, hint in hints:
                    pipe.publish(self._prefix + topic, dumps(hint))
                await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("bell.unheard", hints=len(hints), error=str(error))
        return [None] * len(hints)

    async def _hear(self) -> None:
        pause = _RECONNECT
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(*(self._prefix + topic for topic in self._topics))
                    self.live = True
                    pause = _RECONNECT
                    await self._listen_to(subscription)
            except (RedisError, OSError) as error:
                self.live = False
                log.warning("bell.lost", error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT_MOST)

    async def _listen_to(self, subscription: PubSub) -> None:
        """Deliver what comes. Raises when a connection is open on this side only: nothing comes, not even an answer."""
        asked = False
        while True:
            message = await subscription.get_message(timeout=_SILENCE)
            if message is None:
                if asked:
                    raise RedisTimeout(f"no answer for {_SILENCE:g} s")
                asked = True
                await subscription.ping()
                continue
            asked = False
            if message["type"] == "message":
                self._deliver(message["channel"].decode(), message["data"])

    def _deliver(self, channel: str, data: bytes) -> None:
        try:
            hint = loads(data)
        except ValueError:
            # Not one of ours: a stranger on the channel must not end the listening.
            log.warning("bell.unreadable", channel=channel)
            return
        for listener in self._listeners[Topic(channel.removeprefix(self._prefix))]:
            listener(hint)


def open_bell(url: str | None, topics: Sequence[Topic] = ALL_TOPICS) -> Bell:
    """Make the bell of this process, which hears of `topics`; the url is None when there is no Redis to ring it on."""
    return RedisBell(url, topics=topics) if url is not None else SilentBell()
