"""Between a carrier and the dispatcher: messages wait here for a slot, the most urgent first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import structlog

from dispatch.store.dead_messages import DeadMessage
from schemas.job import Job
from schemas.run import RunStatus
from workers.dispatcher import Dispatcher, Receipt

if TYPE_CHECKING:
    from workers.carriers.source import Delivery

log = structlog.get_logger()

#: How long a claim may take to be decided: a minute more than the writer waits for a database that is away. After
#: that the message is let go, so that no slot is lost; its run is in SQL.
_OVERDUE = timedelta(minutes=11)
#: How often overdue claims are looked for, in seconds.
_LOOK = 5.0
#: How long an orderly stop waits for claims under way, in seconds.
_LAST_CLAIMS = 5.0


class Intake:
    """Offers the dispatcher one message per free slot, and keeps what came ahead."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        tell: Callable[[Job], Receipt],
        keep: Callable[[DeadMessage], Awaitable[None]] | None = None,
    ) -> None:
        """`tell` makes the receipt that Celery is to hear of, for Flower and `inspect`.

        `keep` puts a message that can't be read where an operator sees it.
        """
        self._dispatcher = dispatcher
        self._keep = keep
        self._tell = tell
        self._ahead: list[tuple[int, int, Delivery]] = []
        self._numbers = count()
        self._undecided: dict[_Offered, float] = {}
        self._executing = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def slots(self) -> int:
        return self._dispatcher.concurrency

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Take messages in; what comes after the end is left to the carrier."""
        for delivery in deliveries:
            heapq.heappush(self._ahead, (delivery.job.priority, next(self._numbers), delivery))
        self._pump()

    async def bury(self, message: DeadMessage) -> None:
        """Keep a message that can't be read; it may be acknowledged once this returns. Raises Unavailable."""
        if self._keep is not None:
            await self._keep(message)

    def purge(self) -> None:
        """Forget the messages that are no longer this worker's."""
        self._ahead = [waiting for waiting in self._ahead if waiting[2].fresh()]
        heapq.heapify(self._ahead)
        self._pump()

    def room(self, *, ahead: int = 0) -> int:
        """Tell how many messages more may come, when `ahead` of them may wait for a slot."""
        return max(0, self.slots + ahead - len(self._ahead) - len(self._undecided) - self._executing)

    async def wait_for_room(self, *, ahead: int = 0) -> int:
        """Wait until messages may come; tell how many. 0 means that no more are wanted at all."""
        while not self._closed:
            self._let_go_of_overdue()
            if room := self.room(ahead=ahead):
                return room
            await self._news(_LOOK)
        return 0

    def stop(self) -> None:
        """Offer nothing more, and want nothing more."""
        self._closed = True
        self._tell_waiters()

    async def close(self) -> list[Delivery]:
        """Stop, and wait for claims under way; answer the messages that nobody claimed."""
        self.stop()
        until = asyncio.get_running_loop().time() + _LAST_CLAIMS
        while self._undecided and (left := until - asyncio.get_running_loop().time()) > 0:
            await self._news(left)
        # A claim that is still not decided may be decided yet: then its message was doubled, which does no harm.
        rest = [delivery for _, _, delivery in self._ahead] + [offered.delivery for offered in self._undecided]
        self._ahead.clear()
        self._undecided.clear()
        return [delivery for delivery in rest if delivery.fresh()]

    def decided(self, offered: _Offered, *, claimed: bool) -> None:
        if self._undecided.pop(offered, None) is not None:
            offered.delivery.settle()
        self._executing += claimed
        self._pump()

    def finished(self) -> None:
        self._executing -= 1
        # Not at once: the dispatcher's slot is free when the task that calls this has ended.
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        while self._ahead and not self._closed and len(self._undecided) + self._executing < self.slots:
            _, _, delivery = heapq.heappop(self._ahead)
            if delivery.fresh():
                offered = _Offered(delivery, self, self._tell(delivery.job))
                self._undecided[offered] = asyncio.get_running_loop().time()
                self._dispatcher.offer(delivery.job, offered)
        self._tell_waiters()

    async def _news(self, most: float) -> None:
        """Wait until something has changed, at most this many seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=most)
        finally:
            self._waiters.discard(waiter)

    def _tell_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _let_go_of_overdue(self) -> None:
        limit = asyncio.get_running_loop().time() - _OVERDUE.total_seconds()
        for offered in [offered for offered, since in self._undecided.items() if since < limit]:
            log.warning("claim.overdue", run_id=offered.delivery.job.run_id)
            self.decided(offered, claimed=False)


class _Offered:
    """A message that the dispatcher has: what it hears of it goes to the carrier and to Celery."""

    __slots__ = ("_intake", "_receipt", "delivery")

    def __init__(self, delivery: Delivery, intake: Intake, receipt: Receipt) -> None:
        self.delivery = delivery
        self._intake = intake
        self._receipt = receipt

    def decided(self, claimed: bool) -> None:
        if claimed:
            self._receipt.decided(True)
        self._intake.decided(self, claimed=claimed)

    def finished(self, status: RunStatus | None) -> None:
        self._receipt.finished(status)
        self._intake.finished()
