"""The ways to a function: Lambda's API, and the function's own URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol


class Door(Protocol):
    """One function, as it is invoked from here."""

    def ask(self, event: bytes, *, begins: Callable[[], None]) -> AsyncIterator[bytes]:
        """Invoke, and give the answer as it comes: in one piece, or in many when it is streamed.

        `begins` is called right before the request is sent: until then, and when Throttled or NeverBegan is raised, no
        function runs. Raises FunctionFailed or BrokeOff at any time.
        """
        ...

    async def send(self, event: bytes) -> None:
        """Have Lambda queue an event for the function. Raises Throttled or NeverBegan; BrokeOff when it may have it."""
        ...


class Doors(Protocol):
    """Knows the way to any function."""

    def door(self, function: str, *, streams: bool) -> Door:
        """Raises Unavailable when there is none from here."""
        ...

    async def aclose(self) -> None: ...
