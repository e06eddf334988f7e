"""Kombu's Redis transport, tuned for messages that are only hints.

Stock kombu pops one message a round trip and mirrors each into Redis until it is acknowledged (two MULTI
transactions a message): four fifths of a worker's time. Runs are kept in SQL, so the mirror protects nothing here.
This one pops whatever the free prefetch takes in one call, remembers unacknowledged messages in memory only, and
gives them back on an orderly stop. What a crash takes with it, the reaper publishes again.
"""

from __future__ import annotations

import base64
from itertools import count
from queue import Empty
from typing import Any

import structlog
from kombu.transport import redis as stock
from kombu.transport import virtual

from schemas.json import dumps, loads_own

log = structlog.get_logger()

#: The exchange of worker events, as Celery names it.
_EVENTS = "celeryev"
#: Most messages popped in one call, so that several workers share a short backlog.
_MOST = 100

#: Numbers of deliveries to this process; a message's own tag is made anew wherever it is taken.
_tags = count(1)

#: KEYS: lists in order of urgency. ARGV[1]: how many messages at most. Answers list, message, list, message, ...
_POP_MANY = """
local left = tonumber(ARGV[1])
local found = {}
for _, key in ipairs(KEYS) do
  local items = redis.call('RPOP', key, left)
  if items then
    for _, item in ipairs(items) do
      found[#found + 1] = key
      found[#found + 1] = item
    end
    left = left - #items
    if left <= 0 then break end
  end
end
return found
"""


class JobQoS(virtual.QoS):  # type: ignore[misc]
    """Counts unacknowledged messages in memory; there is nothing in Redis to restore."""

    def can_consume(self) -> bool:
        """Take more once half of what may wait here is gone: then one call brings many messages."""
        waiting = len(self._delivered) - len(self._dirty)
        return not self.prefetch_count or waiting <= self.prefetch_count // 2

    def restore_unacked(self) -> list[Any]:
        """Give back what is not acknowledged. Kombu would write what it can't give back into files in /tmp."""
        lost = super().restore_unacked()
        if lost:
            log.warning("message.not_given_back", messages=len(lost), error=repr(lost[0][0]))
        # A hint that is gone is published again from SQL.
        return []


class JobChannel(stock.Channel):  # type: ignore[misc]
    """A channel that takes messages by the batch, and notes whether anyone hears what it broadcasts."""

    QoS = JobQoS
    #: False once a worker event was published that nobody heard: no Flower is there, or whoever else would listen.
    is_heard = True

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **kwargs: Any) -> None:
        if exchange != _EVENTS:
            super()._put_fanout(exchange, message, routing_key, **kwargs)
            return
        topics = self._get_publish_topics(exchange, routing_key)
        payload = dumps(message)
        with self.conn_or_acquire() as client:
            self.is_heard = sum(client.publish(topic, payload) for topic in topics) > 0

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                first = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                # Without a connection the next turn makes a new one.
                self.client.connection.disconnect()
                raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not first:
            raise Empty
        key, item = first
        if self._closing:
            # The last answer to a channel that takes nothing more: back to where it came from.
            with self.conn_or_acquire() as client:
                client.rpush(key, item)
            raise Empty
        self._hand_over(key, item)
        self._take_more()
        return True

    def _take_more(self) -> None:
        room = self.qos.can_consume_max_estimate()
        wanted = _MOST if room is None else min(room, _MOST)
        if wanted <= 0:
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        keys = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        with self.conn_or_acquire() as client:
            found = client.eval(_POP_MANY, len(keys), *keys, wanted)
        for key, item in zip(found[::2], found[1::2], strict=True):
            self._hand_over(key, item)

    def _hand_over(self, key: bytes, item: bytes) -> None:
        queue = key.decode().rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        self.connection._deliver(_payload(queue, item), queue)

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Give a message back, to the end from which it will be taken next."""
        properties = message._raw["properties"]
        name = self._q_for_pri(properties["delivery_info"]["routing_key"], properties.get("priority") or 0)
        with self.conn_or_acquire() as client:
            client.rpush(name, dumps(message._raw))


def _payload(queue: str, item: bytes) -> dict[str, Any]:
    """Open a message; one that is none of Celery's is handed on whole, as a body that is no job."""
    try:
        payload: dict[str, Any] = loads_own(item)
        properties = payload["properties"]
        read = {"body", "content-type", "content-encoding"} <= payload.keys() and "delivery_info" in properties
    except (ValueError, LookupError, TypeError, AttributeError):
        read = False
    if not read:
        payload = {
            "body": base64.b64encode(item).decode(),
            "content-type": "application/octet-stream",
            "content-encoding": "binary",
            "headers": {},
            "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": queue}},
        }
    # Doubled hints carry the same tag, and a tag may count only once.
    payload["properties"]["delivery_tag"] = str(next(_tags))
    return payload


class JobTransport(stock.Transport):  # type: ignore[misc]
    """Registered with kombu as `flo-redis` (see `celery_app.py`)."""

    Channel = JobChannel
