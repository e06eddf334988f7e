"""The instances of one function: as many as there are invocations, up to a limit; what broke is not used again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.lambda_double.instances import FunctionError, Instance, Terms

#: What is told of an invocation: pieces of the answer, perhaps an error, None at the end.
Told = asyncio.Queue[bytes | FunctionError | None]


class Throttled(Exception):
    """As many instances are busy as there may be."""


class Function:
    """An invocation goes on whoever listens, as Lambda's do."""

    def __init__(self, start: Callable[[Terms], Awaitable[Instance]], terms: Terms, *, most: int) -> None:
        self._start = start
        self._terms = terms
        self._most = most
        self._idle: list[Instance] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.busy: set[Instance] = set()
        #: Set while an invocation is under way.
        self.in_use = asyncio.Event()
        self.begun = 0
        self.started = 0
        self.throttled = 0

    def begin(self, event: bytes) -> Told:
        """Execute an event. Raises Throttled."""
        if len(self._tasks) >= self._most:
            self.throttled += 1
            raise Throttled
        self.begun += 1
        told: Told = asyncio.Queue()
        task = asyncio.create_task(self._execute(event, told))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return told

    async def whole(self, event: bytes) -> bytes:
        """Execute an event, and give the whole answer. Raises Throttled or FunctionError."""
        told, pieces = self.begin(event), []
        while (piece := await told.get()) is not None:
            if isinstance(piece, FunctionError):
                raise piece
            pieces.append(piece)
        return b"".join(pieces)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in [*self._idle, *self.busy]))

    async def _new(self) -> Instance:
        self.started += 1
        return await self._start(self._terms)

    async def _execute(self, event: bytes, told: Told) -> None:
        one = self._idle.pop() if self._idle else await self._new()
        self.busy.add(one)
        self.in_use.set()
        try:
            async for piece in one.invoke(event):
                told.put_nowait(piece)
        except FunctionError as error:
            told.put_nowait(error)
            await one.close()
        else:
            self._idle.append(one)
        self.busy.discard(one)
        if not self.busy:
            self.in_use.clear()
        told.put_nowait(None)
