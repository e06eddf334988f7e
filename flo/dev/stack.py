"""The life of `flo dev`, from its first process to its last. Read `run` first."""

from __future__ import annotations

import asyncio
import http.client
import signal
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from flo.dev.child import Program
from flo.dev.keeper import Keeper
from flo.dev.plan import LOOPBACK, Plan
from flo.dev.voice import Voice
from flo.errors import FloError

#: The API may first have to bring an old database up to date.
_START_LIMIT = timedelta(seconds=90)


class Stack:
    """All the processes of one `flo dev`; make it inside the event loop that runs it."""

    def __init__(self, plan: Plan, voice: Voice) -> None:
        self._plan = plan
        self._voice = voice
        self._up = asyncio.Event()
        self._stop = asyncio.Event()
        #: Set by the second Ctrl-C: no process is waited for any more.
        self._hurry = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeping: dict[Keeper, asyncio.Task[None]] = {}

    async def run(self, when_up: Callable[[timedelta], None]) -> None:
        """Start everything, keep it running until the user stops it, and leave no process behind."""
        began = time.monotonic()
        self._listen_for_signals()
        try:
            await self._until_asked_to_stop(self._start())
            if not self._stop.is_set():
                self._up.set()
                when_up(timedelta(seconds=time.monotonic() - began))
                await self._until_asked_to_stop(asyncio.Event().wait())
        finally:
            await self._stop_all()

    async def _start(self) -> None:
        """Start Redis, then all that needs it at once; return when the API is ready."""
        if self._plan.redis is not None:
            await self._keep(self._plan.redis).ready.wait()
        for program in (program for rank in self._plan.ranks for program in rank):
            self._keep(program)
        deadline = time.monotonic() + _START_LIMIT.total_seconds()
        while not await asyncio.to_thread(_is_ready, self._plan.api_port):
            if time.monotonic() > deadline:
                raise FloError(f"the API was not ready after {_START_LIMIT.total_seconds():g} s: see its lines")
            await asyncio.sleep(0.05)

    def _keep(self, program: Program) -> Keeper:
        keeper = Keeper(program, self._voice, up=self._up, hurry=self._hurry)
        self._keeping[keeper] = task = asyncio.create_task(keeper.keep(), name=program.name)
        task.add_done_callback(self._note_failure)
        return keeper

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not self._failure.done():
            self._failure.set_exception(failure)

    async def _until_asked_to_stop(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do the work, but drop it when the user asks to stop, or when a program has failed for good (which raises)."""
        doing = asyncio.create_task(work)
        asked = asyncio.create_task(self._stop.wait())
        waited: set[asyncio.Future[Any]] = {doing, asked, self._failure}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for task in (doing, asked):
            if not task.done():
                task.cancel()
        if self._failure.done():
            self._failure.result()
        if doing.done() and not doing.cancelled():
            await doing

    async def _stop_all(self) -> None:
        """Stop rank by rank, so that workers finish what they hold while all that they need is still there."""
        if self._up.is_set():
            self._voice.says("stopping: workers first finish what they hold (Ctrl-C again: stop at once)")
        else:
            self._hurry.set()  # a stack that never was up has nothing to finish
        redis = () if self._plan.redis is None else (self._plan.redis,)
        for rank in (*self._plan.ranks, redis):
            await asyncio.gather(*(keeper.stop() for keeper in self._keeping if keeper.program in rank))
        for task in self._keeping.values():
            task.cancel()
        await asyncio.gather(*self._keeping.values(), return_exceptions=True)
        if self._up.is_set():
            self._voice.says("stopped")

    def _listen_for_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._ask_to_stop)

    def _ask_to_stop(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
