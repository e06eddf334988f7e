"""What a test wants to go wrong, and what was asked of the API."""

from __future__ import annotations

import asyncio
from collections import Counter


class Mischief:
    """Failures to come, by verb and kind."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.asked: Counter[str] = Counter()
        self._failures: dict[str, list[int]] = {}

    def fail(self, *, verb: str, plural: str, status: int, times: int) -> None:
        """Answer the next requests of this kind with a status."""
        self._failures[f"{verb} {plural}"] = [status] * times

    async def meet(self, verb: str, plural: str) -> int | None:
        """Note a request; give the status that it is to fail with, if it is."""
        asked = f"{verb} {plural}"
        self.asked[asked] += 1
        await asyncio.sleep(self.delay_s)
        left = self._failures.get(asked)
        return left.pop() if left else None
