"""The SQS source: long polls while idle, parallel receives while busy, batch deletes once claims are decided."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import structlog

from dispatch.coalesce import Coalescer
from dispatch.queues.envelope import Unreadable, open_envelope
from dispatch.queues.sqs_client import BATCH, Entry, SqsClient
from dispatch.store.dead_messages import DeadMessage
from schemas.errors import Unavailable
from schemas.job import Job
from schemas.settings import Settings
from workers.carriers.backoff import Backoff
from workers.carriers.intake import Intake
from workers.carriers.source import Delivery

log = structlog.get_logger()

#: Length of a long poll in seconds: a stop waits for those under way, as what an abandoned one brings is out of sight
#: until its time-out.
_POLL = 5
#: Receives under way at once for one busy lane.
_AT_ONCE = 8
#: Leases that a received message stays hidden from other workers. Claims take milliseconds; a message whose worker
#: died comes back after this.
_HIDDEN_LEASES = 3
#: Acknowledgements that gather while some are under way.
_DELETES = 80


@dataclass(frozen=True, slots=True, eq=False)
class SqsDelivery:
    """A received message."""

    job: Job
    receipt: str
    #: By the loop's clock; then SQS gives it to the next who asks.
    hidden_until: float
    deletes: Coalescer[str, None]

    def fresh(self) -> bool:
        return asyncio.get_running_loop().time() < self.hidden_until

    def settle(self) -> None:
        self.deletes.submit(self.receipt)


class SqsSource:
    """Receives from one queue per lane."""

    def __init__(self, settings: Settings, queues: tuple[str, ...], intake: Intake) -> None:
        self._client = SqsClient(settings, threads=len(queues) * (_AT_ONCE + 4))
        self._intake = intake
        self._hidden = ceil(settings.lease_seconds * _HIDDEN_LEASES)
        self._deletes = {queue: Coalescer[str, None](partial(self._delete, queue), most=_DELETES) for queue in queues}
        self._stopping = asyncio.Event()
        self._pollers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._pollers = [asyncio.create_task(self._poll(queue), name=f"sqs {queue}") for queue in self._deletes]

    async def aclose(self) -> None:
        self._stopping.set()
        unclaimed = await self._intake.close()
        await self._give_back(unclaimed)
        await asyncio.wait(self._pollers)
        await self._give_back(await self._intake.close())
        for deletes in self._deletes.values():
            await deletes.settle()
        await self._client.aclose()

    async def _poll(self, queue: str) -> None:
        backoff = Backoff("sqs", queue=queue)
        busy = False
        while room := await self._intake.wait_for_room():
            try:
                # A long poll asks all of SQS's servers; short ones, some of them, as long as they bring enough.
                calls = min(_AT_ONCE, ceil(room / BATCH)) if busy else 1
                found = await self._receive(queue, room, calls=calls, wait=0 if busy else _POLL)
            except Unavailable as error:
                await backoff.wait(error, unless=self._stopping)
            else:
                backoff.over()
                busy = len(found) >= min(room, calls * BATCH)
                self._intake.put(found)

    async def _receive(self, queue: str, room: int, *, calls: int, wait: int) -> list[Delivery]:
        asked_at = asyncio.get_running_loop().time()
        sizes = [min(BATCH, room - start) for start in range(0, min(room, calls * BATCH), BATCH)]
        answers = await asyncio.gather(
            *(self._client.receive(queue, most=size, wait=wait, hidden=self._hidden) for size in sizes),
            return_exceptions=True,
        )
        found: list[Delivery] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                if not any(isinstance(other, list) for other in answers):
                    raise answer
                continue
            for message in answer:
                if (delivery := await self._read(queue, message, asked_at + self._hidden)) is not None:
                    found.append(delivery)
        return found

    async def _read(self, queue: str, message: dict[str, Any], hidden_until: float) -> SqsDelivery | None:
        receipt = message["ReceiptHandle"]
        try:
            job = open_envelope(message["Body"])
        except Unreadable as error:
            await self._bury(queue, message, reason=str(error))
            return None
        return SqsDelivery(job, receipt, hidden_until, self._deletes[queue])

    async def _bury(self, queue: str, message: dict[str, Any], *, reason: str) -> None:
        """Keep an unreadable message where a person can look at it."""
        entry: Entry = {
            "Id": "0",
            "MessageBody": message["Body"],
            "MessageAttributes": {"reason": {"DataType": "String", "StringValue": reason}},
        }
        if self._client.fifo:
            entry |= {"MessageGroupId": "unreadable", "MessageDeduplicationId": message["MessageId"]}
        dead = self._client.name_of(queue, dead=True)
        log.error("message.unreadable", queue=queue, kept_in=dead, error=reason)
        try:
            refused = await self._client.send(queue, [entry], dead=True)
            body = message["Body"].encode(errors="replace")
            await self._intake.bury(DeadMessage(carrier="sqs", lane=queue, body=body, reason=reason))
        except Unavailable as error:
            log.warning("message.not_buried", queue=queue, error=str(error))
            return
        if not refused:
            self._deletes[queue].submit(message["ReceiptHandle"])

    async def _delete(self, queue: str, receipts: Sequence[str]) -> Sequence[None]:
        """Take messages off the queue. One that stays comes again, and its claim is refused."""
        ends = await asyncio.gather(
            *(self._client.delete(queue, some) for some in _tens(receipts)), return_exceptions=True
        )
        for end in ends:
            if end:
                log.warning("sqs.not_deleted", queue=queue, error=str(end)[:300])
        return [None] * len(receipts)

    async def _give_back(self, unclaimed: Sequence[Delivery]) -> None:
        lanes: dict[str, list[str]] = {queue: [] for queue in self._deletes}
        for delivery in unclaimed:
            assert isinstance(delivery, SqsDelivery)
            lanes[delivery.job.queue].append(delivery.receipt)
        calls = [self._client.give_back(queue, some) for queue, lane in lanes.items() for some in _tens(lane)]
        for end in await asyncio.gather(*calls, return_exceptions=True):
            if end:
                log.warning("sqs.not_given_back", error=str(end)[:300])


def _tens(receipts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (receipts[start : start + BATCH] for start in range(0, len(receipts), BATCH))
