"""Steady load over all lanes for minutes, and what each process's memory does meanwhile: it is to stay flat."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections import defaultdict
from random import Random
from typing import Any

from scripts.chaosrig.flows import APP, LONG, SHORT, push
from scripts.chaosrig.judge import judge, leftovers
from scripts.chaosrig.load import Load, wait_for_the_end
from scripts.chaosrig.processes import children, resident_mb
from scripts.chaosrig.rig import Rig, open_rig
from scripts.chaosrig.witness import open_witness

#: Share of the time after which caches are warm.
_WARM = 0.25
#: Seconds between two samples.
_SAMPLE = 2.0
_HOOK = "soak"


async def soak(carrier: str, db: str, minutes: float, chance: Random) -> dict[str, Any]:
    """Run the load; give each process's memory, in MB, when warm and at the end."""
    async with open_witness() as witness, open_rig(carrier, db, workers=2) as rig:
        await push(rig, witness.port)
        await _open_other_lanes(rig)
        load = Load(rig, chance)
        seconds = minutes * 60
        until = time.monotonic() + seconds
        sampling = asyncio.create_task(_sample(rig, seconds))
        hooks = asyncio.create_task(_call_hooks(rig, until))
        while time.monotonic() < until:
            await load.feed(100)
        await hooks
        samples = await sampling
        await rig.http.post(f"/api/v1/apps/{APP}/events/every/pause")
        await wait_for_the_end(rig, patience=120)
        figures = await judge(rig.database, witness, load.accepted)
        lanes = dict(await rig.database.read("SELECT lane, count(*) FROM runs GROUP BY lane"))
        await rig.stop()
        return {**figures, **leftovers(rig.home, rig.scratch), "runs_by_lane": lanes, "memory_mb": _growth(samples)}


async def _open_other_lanes(rig: Rig) -> None:
    hook = {"kind": "webhook", "flow": SHORT.name, "config": {"path": _HOOK}}
    (await rig.http.put(f"/api/v1/apps/{APP}/events/{_HOOK}", json=hook)).raise_for_status()
    every = {"kind": "schedule", "flow": LONG.name, "config": {"every": "1s"}}
    (await rig.http.put(f"/api/v1/apps/{APP}/events/every", json=every)).raise_for_status()


async def _call_hooks(rig: Rig, until: float) -> None:
    for number in itertools.count():
        if time.monotonic() >= until:
            return
        (await rig.http.post(f"/hooks/{APP}/{_HOOK}", json={"number": number})).raise_for_status()
        await asyncio.sleep(0.1)


async def _sample(rig: Rig, seconds: float) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(int(seconds / _SAMPLE)):
        await asyncio.sleep(_SAMPLE)
        for name, process in rig.processes().items():
            samples[name].append(resident_mb(process.pid))
            if family := children(process.pid):
                samples[f"{name}, children"].append(sum(map(resident_mb, family)))
        wal = rig.home / "flo.db-wal"
        if wal.exists():
            samples["SQLite's WAL"].append(wal.stat().st_size / 2**20)
    return samples


def _growth(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    found = {}
    for name, series in samples.items():
        # The middle of a tenth of the time: a moment's peak is no leak.
        some = max(1, len(series) // 10)
        start = int(len(series) * _WARM)
        warm, end = statistics.median(series[start : start + some]), statistics.median(series[-some:])
        growth = 100 * (end - warm) / warm if warm else 0.0
        found[name] = {"warm": round(warm, 1), "end": round(end, 1), "growth_percent": round(growth, 1)}
        print(f"soak: {name}: {warm:.1f} MB warm, {end:.1f} MB at the end ({growth:+.1f} %)", file=sys.stderr)
    return found
