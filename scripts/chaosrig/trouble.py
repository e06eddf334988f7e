"""What goes wrong, one thing after the other, until it is to be calm."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from scripts.chaosrig.rig import Rig


class Trouble:
    """Makes trouble by chance; the same seed makes the same sequence."""

    def __init__(self, rig: Rig, chance: Random) -> None:
        self._rig = rig
        self._chance = chance
        self.done: Counter[str] = Counter()
        self.calm = False

    async def make(self) -> None:
        """Go on until `calm`; what is under way then is brought to its end."""
        kinds: dict[str, tuple[Callable[[], Awaitable[None]], int]] = {
            "worker_kills": (self._kill_worker, 3),
            "worker_freezes": (self._freeze_worker, 1),
            "broker_wipes": (self._rig.broker.wipe, 1),
            "broker_restarts": (self._restart_broker, 1),
            "api_kills": (self._rig.kill_api, 1),
            "scheduler_kills": (self._rig.kill_tick, 1),
            "doublings": (self._rig.broker.double, 1),
            "shuffles": (lambda: self._rig.broker.shuffle(self._chance), 1),
            "database_outages": (self._stop_database, 1),
        }
        names, weights = list(kinds), [weight for _, weight in kinds.values()]
        while not self.calm:
            await asyncio.sleep(0.2 + self._chance.random() * 1.3)
            self._rig.mend()
            [name] = self._chance.choices(names, weights)
            self.done[name] += 1
            await kinds[name][0]()

    async def _kill_worker(self) -> None:
        await self._rig.kill_worker(self._chance.randrange(len(self._rig.workers)))

    async def _freeze_worker(self) -> None:
        """Stop a worker for longer than its lease, then let it go on as if nothing had been."""
        worker = self._chance.choice(self._rig.workers)
        if worker.poll() is None:
            worker.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self._rig.lease * (1.3 + self._chance.random()))
            worker.send_signal(signal.SIGCONT)

    async def _restart_broker(self) -> None:
        await self._rig.broker.kill()
        await asyncio.sleep(self._chance.random() * 2)
        await self._rig.broker.start()

    async def _stop_database(self) -> None:
        await self._rig.database.away(1 + self._chance.random() * 3)
