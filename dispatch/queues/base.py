"""The port that every carrier implements on the sending side; Celery, or a step in its worker, is the receiving one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.job import Job


class Queue(Protocol):
    """A carrier of hints. It may lose, double and reorder messages: SQL has the truth."""

    async def publish(self, jobs: Sequence[Job]) -> None:
        """Send all jobs, each to its own queue. Raises Unavailable when the broker can't be reached."""

    async def depth(self, queue: str) -> int:
        """Count the messages that wait in a queue, roughly. Raises Unavailable."""

    async def ping(self) -> None:
        """Raise Unavailable, with the fix, when the broker does not answer."""

    async def aclose(self) -> None: ...
