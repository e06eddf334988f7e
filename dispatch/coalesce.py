"""Many awaits, one statement: whatever asks in the same instant is done as one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Coalescer(Generic[Item, Answer]):
    """Gather items while a batch is under way, then do all of them at once.

    An item that finds nothing under way starts a batch on the next turn of the loop, so an idle system adds no delay
    and a busy one forms larger batches by itself. Batches never overlap and keep the order of `submit`.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | BaseException]]], *, most: int
    ) -> None:
        """`work` answers one item each, in order; an exception in its place is raised to that item's caller."""
        self._work = work
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Answer]:
        """Queue an item; the future ends with its answer. Cancelling the future does not undo the work."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._drain(), name="coalescer")
        return future

    async def settle(self) -> None:
        """Wait until everything submitted so far has been answered."""
        while self._running is not None:
            await asyncio.wait([self._running])

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                try:
                    answers = await self._work([item for item, _ in batch])
                except asyncio.CancelledError:
                    for _, future in batch:
                        future.cancel()
                    raise
                except Exception as error:  # noqa: BLE001 - it is raised again, to every caller in the batch
                    answers = [error] * len(batch)
                for (_, future), answer in zip(batch, answers, strict=True):
                    if future.done():
                        continue
                    if isinstance(answer, BaseException):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._running = None
            if self._waiting:
                self._running = asyncio.create_task(self._drain(), name="coalescer")
