"""Two mailboxes between Celery's thread and the event loop, with one wake-up for whatever gathers in the meantime."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

#: Seconds for which notices gather: each turn of kombu's hub costs about as much as a run, and an acknowledgement is
#: waited for by nobody.
_GATHER = 0.002

Parcel = TypeVar("Parcel")


class Crossing(Generic[Parcel]):
    """Parcels go from Celery's thread to the loop, notices (calls to make there) the other way.

    All of Celery's and kombu's state is touched by Celery's thread alone, and all of Flo's by the loop's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Callable[[Parcel], None]) -> None:
        """`receive` is called in the loop's thread with each parcel."""
        self._loop = loop
        self._receive = receive
        self._parcels: deque[Parcel] = deque()
        self._notices: deque[Callable[[], None]] = deque()
        self._loop_woken = False
        self._hub_woken = False
        self._ear, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def send(self, parcel: Parcel) -> None:
        """Hand a parcel to the loop; called in Celery's thread."""
        self._parcels.append(parcel)
        if not self._loop_woken:
            self._loop_woken = True
            self._loop.call_soon_threadsafe(self._unpack)

    def tell(self, notice: Callable[[], None]) -> None:
        """Have something called in Celery's thread, in a moment; called in the loop's thread."""
        self._notices.append(notice)
        if not self._hub_woken:
            self._hub_woken = True
            self._loop.call_later(_GATHER, os.write, self._bell, b"!")

    def register(self, hub: Any) -> None:
        """Let kombu's hub wake up for notices: an acknowledgement from another thread alone would not."""
        hub.add_reader(self._ear, self.read_notices)

    def read_notices(self) -> None:
        """Call what the loop has asked for; called in Celery's thread."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._ear, 4096)
        # Lowered before the box is emptied: a notice that comes now rings again, at worst for nothing.
        self._hub_woken = False
        while self._notices:
            self._notices.popleft()()

    def close(self) -> None:
        os.close(self._ear)
        os.close(self._bell)

    def _unpack(self) -> None:
        self._loop_woken = False
        while self._parcels:
            self._receive(self._parcels.popleft())
