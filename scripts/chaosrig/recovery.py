"""How long the runs of a killed worker wait until another has them."""

from __future__ import annotations

import asyncio
from typing import Any

from scripts.chaosrig.databases import Database
from scripts.chaosrig.load import Load
from scripts.chaosrig.rig import Killed, Rig

#: Runs that are fed around each kill: enough that every worker holds some.
_RUNS = 40


async def kill_in_calm(rig: Rig, load: Load, kills: int) -> list[Killed]:
    """Kill one worker after the other under load, with nothing else going wrong; say who was killed."""
    before = len(rig.killed)
    for number in range(kills):
        feeding = asyncio.create_task(load.feed(_RUNS))
        # In the middle of it: every caller has sent some.
        await asyncio.sleep(0.5)
        place = number % len(rig.workers)
        await rig.end_worker(place)
        await feeding
        await asyncio.sleep(rig.lease)
        rig.start_worker(place)
    return rig.killed[before:]


async def recoveries(database: Database, killed: list[Killed]) -> list[float]:
    """Give, for each run that a kill interrupted, the seconds from the kill to the start of its next attempt."""
    began = {
        (run, attempt): (worker, _seconds(at))
        for run, attempt, worker, at in await database.read("SELECT run_id, attempt, worker, started_at FROM attempts")
    }
    workers = await database.read("SELECT id, pid, started_at FROM workers")
    found = []
    for kill in killed:
        [(_, victim)] = sorted(
            (kill.at - _seconds(at), worker)
            for worker, pid, at in workers
            if pid == kill.pid and _seconds(at) < kill.at
        )[:1] or [(0.0, None)]
        for (run, attempt), (worker, at) in began.items():
            again = began.get((run, attempt + 1))
            # What was given back, or taken away, before the kill began anew before it too.
            if worker == victim and at < kill.at and again is not None and again[1] > kill.at:
                found.append(again[1] - kill.at)
    return found


def spread(seconds: list[float]) -> dict[str, Any]:
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
