"""How long the runs of a killed worker wait until another has them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from scripts.chaosrig.databases import Database
from scripts.chaosrig.load import Load
from scripts.chaosrig.rig import Killed, Rig

#: Runs that are fed around each kill: enough that every worker holds some.
_RUNS = 40


@dataclass(frozen=True, slots=True)
class Recovery:
    """A run that a kill interrupted; times are seconds since the kill."""

    run: str
    attempt: int
    #: Its attempt was taken from the dead worker.
    noticed: float
    #: Its next attempt began.
    begun: float


async def kill_in_calm(rig: Rig, load: Load, kills: int) -> list[Killed]:
    """Kill one worker after the other under load, with nothing else going wrong; say who was killed."""
    before = len(rig.killed)
    for number in range(kills):
        await rig.workers_up()  # calm is when those that are left can take the runs at once
        feeding = asyncio.create_task(load.feed(_RUNS))
        # In the middle of it: every caller has sent some.
        await asyncio.sleep(0.5)
        place = number % len(rig.workers)
        await rig.end_worker(place)
        await feeding
        await asyncio.sleep(rig.lease)
        rig.start_worker(place)
    return rig.killed[before:]


async def recoveries(database: Database, killed: list[Killed]) -> list[Recovery]:
    """Find the runs that these kills interrupted, and when each was noticed and begun again."""
    began = {
        (run, attempt): (worker, _seconds(at), _seconds(over))
        for run, attempt, worker, at, over in await database.read(
            "SELECT run_id, attempt, worker, started_at, finished_at FROM attempts WHERE finished_at IS NOT NULL"
        )
    }
    workers = await database.read("SELECT id, pid, started_at FROM workers")
    found = []
    for kill in killed:
        [(_, victim)] = sorted(
            (kill.at - _seconds(at), worker)
            for worker, pid, at in workers
            if pid == kill.pid and _seconds(at) < kill.at
        )[:1] or [(0.0, None)]
        for (run, attempt), (worker, at, over) in began.items():
            again = began.get((run, attempt + 1))
            # What was over, given back or taken away before the kill is none of its doing.
            if worker == victim and at < kill.at < over and again is not None:
                found.append(Recovery(run, attempt, noticed=over - kill.at, begun=again[1] - kill.at))
    return found


def spreads(name: str, found: list[Recovery]) -> dict[str, Any]:
    """Word recoveries as figures: until the next attempt, of that until the loss was noticed, and the slowest one."""
    slowest = max(found, key=lambda one: one.begun, default=None)
    return {
        name: _spread([one.begun for one in found]),
        f"{name}_noticed": _spread([one.noticed for one in found]),
        f"{name}_slowest": f"{slowest.run}, attempt {slowest.attempt}" if slowest is not None else None,
    }


def _spread(seconds: list[float]) -> dict[str, Any]:
    """Word waits as milliseconds: how many, the middle one, the 99th percentile, the longest."""
    ordered = sorted(seconds)
    if not ordered:
        return {"runs": 0}
    return {
        "runs": len(ordered),
        "p50_ms": round(ordered[len(ordered) // 2] * 1000),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000),
        "max_ms": round(ordered[-1] * 1000),
    }


def _seconds(moment: Any) -> float:
    """Read a time as the databases keep it: microseconds since 1970, or a timestamp."""
    return moment / 1e6 if isinstance(moment, int) else float(moment.timestamp())
