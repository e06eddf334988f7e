"""Threads for calls that block for as long as a function runs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


#: Seconds that a call waits for a thread.
_PATIENCE = 5.0


class NoRoom(Exception):
    """All threads are busy."""


class DaemonThreads:
    """Up to `most` calls at once. What is still under way does not keep the process from ending, as a pool would."""

    def __init__(self, most: int, *, name: str, patience: float = _PATIENCE) -> None:
        self._room = asyncio.Semaphore(most)
        self._patience = patience
        self._name = name

    async def call(self, work: Callable[[], Answer], *, begins: Callable[[], None] = lambda: None) -> Answer:
        """Do work in a thread; `begins` is called on the loop right before. It can't be stopped, only left alone.

        Raises NoRoom when all threads stay busy for a while.
        """
        try:
            async with asyncio.timeout(self._patience):
                await self._room.acquire()
        except TimeoutError:
            raise NoRoom from None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()

        def do() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  raised again where the answer is awaited
                end(_fail, error)
            else:
                end(_give, result)

        def end(how: Callable[..., None], what: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(how, answer, what)
                loop.call_soon_threadsafe(self._room.release)

        begins()
        threading.Thread(target=do, name=self._name, daemon=True).start()
        return await answer


def _give(answer: asyncio.Future[Answer], result: Answer) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[Answer], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
