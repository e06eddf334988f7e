"""The callers: they invoke, and ask again with the same key when they got no answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from random import Random

import httpx

from scripts.chaosrig.flows import APP, chain_of
from scripts.chaosrig.rig import Rig

_CALLERS = 6
#: Longest pause of a caller between two runs, in seconds.
_PAUSE = 0.5


class Load:
    """Runs that were accepted: what was answered 202."""

    def __init__(self, rig: Rig, chance: Random) -> None:
        self._rig = rig
        self._chance = chance
        self._next = 0
        self.accepted: set[str] = set()
        self.asked_again = 0

    async def feed(self, runs: int) -> None:
        """Have this many runs accepted."""
        numbers = iter(range(self._next, self._next + runs))
        self._next += runs
        await asyncio.gather(*(self._call(numbers) for _ in range(_CALLERS)))

    async def _call(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            while not await self._accepted(number):
                self.asked_again += 1
                await asyncio.sleep(0.2)
            await asyncio.sleep(self._chance.random() * _PAUSE)

    async def _accepted(self, number: int) -> bool:
        try:
            answer = await self._rig.http.post(
                f"/api/v1/apps/{APP}/events/{chain_of(number).name}/invoke/async",
                json={"payload": {}},
                headers={"Idempotency-Key": f"chaos-{number}"},
            )
        except httpx.TransportError:
            return False
        if answer.status_code != 202:
            return False
        self.accepted.add(answer.json()["run_id"])
        return True


async def wait_for_the_end(rig: Rig, *, patience: float) -> None:
    """Return when no run is queued or running, or when patience, in seconds, has run out."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        live = 0
        for status in ("queued", "running"):
            try:
                answer = await rig.http.get("/api/v1/runs", params={"app": APP, "status": status, "limit": 1})
            except httpx.TransportError:
                live = 1
            else:
                live += answer.status_code != 200 or len(answer.json()["items"])
        if not live:
            return
        await asyncio.sleep(0.5)
