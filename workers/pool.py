"""A Celery pool whose slots are asyncio tasks on one loop in a second thread."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import structlog
from celery.concurrency.base import BasePool
from celery.exceptions import WorkerShutdown

from dispatch.store.dead_messages import DeadMessage
from schemas.errors import FloError, Unavailable
from schemas.job import Job
from workers.assembly import Assembly
from workers.crossing import Crossing
from workers.dispatcher import Receipt
from workers.garbage import spare_what_stays
from workers.loop import LoopThread

log = structlog.get_logger()

#: Seconds between looks at the loop from Celery's thread, and how long it may fail to answer.
_PULSE = 5.0
_SILENCE = 60.0

Parcel = tuple[Job, Receipt]


class LoopPool(BasePool):  # type: ignore[misc]
    """Runs the dispatcher. A subclass names how it is put together (see `celery_worker.py`)."""

    @staticmethod
    def assemble(concurrency: int) -> Assembly:
        """Make the dispatcher and all that it needs; called in the loop's thread."""
        raise NotImplementedError

    #: How long an orderly stop waits for runs before it gives them back to the queue.
    drain: ClassVar[timedelta] = timedelta(seconds=30)

    # Celery may call `stop` from its signal handling: nothing here waits on a lock of that thread.
    signal_safe = True
    body_can_be_buffer = True
    task_join_will_block = False

    crossing: Crossing[Parcel]
    _assembly: Assembly | None = None

    def on_start(self) -> None:
        self._thread = LoopThread("flo-loop")
        self._thread.start()
        try:
            self._assembly = self._thread.call(self._open())
        except FloError as error:
            self._thread.stop()
            print(f"flo worker: {error}", file=sys.stderr)
            raise WorkerShutdown(2) from None
        self.crossing = Crossing(self._thread.loop, self._offer)

    def register_with_event_loop(self, hub: Any) -> None:
        self.crossing.register(hub)
        self._beaten_at = time.monotonic()
        hub.call_repeatedly(_PULSE, self._feel_pulse)

    def _feel_pulse(self) -> None:
        """End the process when its loop has stopped turning: it can't be stopped in order, and others take its runs."""
        if self._assembly is None:
            return
        silent = time.monotonic() - self._beaten_at
        if silent > _SILENCE:
            log.critical("worker.stuck", silent_s=round(silent))
            os._exit(os.EX_SOFTWARE)
        self._thread.loop.call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()

    def on_close(self) -> None:
        if self._assembly is None:
            return
        self._thread.loop.call_soon_threadsafe(self._assembly.dispatcher.stop_taking)

    def on_stop(self) -> None:
        if self._assembly is None:
            return
        draining = self._thread.submit(self._assembly.aclose(self.drain))
        latest = time.monotonic() + self.drain.total_seconds() + _SILENCE
        while not draining.done():
            if time.monotonic() > latest:
                log.critical("worker.stuck", draining=True)
                os._exit(os.EX_SOFTWARE)
            with contextlib.suppress(TimeoutError):
                draining.exception(timeout=0.05)
            self.crossing.read_notices()
        if (error := draining.exception()) is not None:
            log.error("worker.stopped_badly", error=repr(error))
        self._assembly = None
        self._thread.stop()
        self.crossing.close()

    def on_terminate(self) -> None:
        """A cold stop gives the runs back at once."""
        type(self).drain = timedelta(0)
        self.on_stop()

    def grow(self, n: int = 1) -> None:
        self._resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        self._resize(max(1, self.limit - n))

    def _resize(self, limit: int) -> None:
        self.limit = limit
        if self._assembly is not None:
            self._assembly.dispatcher.concurrency = limit

    def bury(self, message: DeadMessage, *, then: Callable[[], None]) -> None:
        """Keep a message that can't be read, then call `then` in Celery's thread; called there too."""

        async def keep(assembly: Assembly) -> None:
            with contextlib.suppress(Unavailable):  # then it stays unacknowledged, and is given back at the end
                await assembly.morgue.keep(message)
                self.crossing.tell(then)

        if self._assembly is not None:
            self._thread.submit(keep(self._assembly))

    def _offer(self, parcel: Parcel) -> None:
        if self._assembly is not None:
            self._assembly.dispatcher.offer(*parcel)

    async def _open(self) -> Assembly:
        assembly = self.assemble(self.limit)
        await assembly.start()
        spare_what_stays()
        return assembly

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "threads": 1, "loop": "uvloop"}
