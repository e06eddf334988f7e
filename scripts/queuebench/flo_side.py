"""Flo's side: accept over HTTP, then drain with the workers."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from scripts.chaosrig.flows import APP, SHORT, push
from scripts.chaosrig.rig import Rig, open_rig
from scripts.queuebench.family import use_of
from scripts.queuebench.quantiles import quantiles

_CONNECTIONS = 32
#: Share of a backlog after which the rate is taken.
WARM = 0.2
#: Seconds between two looks at how far a backlog is, for each of its jobs: a look reads all its rows, on the cores of
#: those that are measured.
_LOOK = 5e-5
_LEASE = 10.0
#: Seconds without a job done after which a drain is given up.
_STANDSTILL = 120.0


async def measure_flo(carrier: str, db: str, *, jobs: int, idle: int, workers: int) -> dict[str, Any]:
    """Accept a backlog, drain it, then send one job at a time."""
    async with open_rig(carrier, db, workers=0, concurrency=128, lease=_LEASE) as rig:
        await push(rig, 1)
        # Before the backlog: queues and topics are made, connections opened.
        await _accept(rig, 20)
        accepting = await _accept(rig, jobs)
        for _ in range(workers):
            rig.add_worker()
        drained = await _drain(rig, jobs)
        waits = await _idle(rig, idle)
    return {"jobs": jobs, "publish_per_s": round(accepting), **drained, **quantiles(waits)}


async def _accept(rig: Rig, count: int) -> float:
    """Invoke over keep-alive connections as fast as they answer; give the rate."""
    body = b'{"payload":{"n":1}}'
    request = (
        f"POST /api/v1/apps/{APP}/events/{SHORT.name}/invoke/async HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {rig.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    left = iter(range(count))

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        for _ in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 202 " not in head.split(b"\r\n", 1)[0]:
                raise RuntimeError(head.decode())
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            json.loads(await reader.readexactly(length))
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(_CONNECTIONS)))
    return count / (time.perf_counter() - started)


async def _drain(rig: Rig, count: int) -> dict[str, float]:
    """Wait until all is done; give the rate at which SQL recorded the ends, and what the workers used."""
    workers = [worker.pid for worker in rig.workers]
    patience = _Patience(rig)
    while patience.at(done := await _over(rig)) < count * WARM:  # noqa: ASYNC110
        await asyncio.sleep(count * _LOOK)
    before = use_of(workers)
    while (left := count - patience.at(await _over(rig))) > count * WARM:  # noqa: ASYNC110
        await asyncio.sleep(count * _LOOK)
    after = use_of(workers)
    await _all_over(rig)
    ends = [_seconds(row[0]) for row in await rig.database.read("SELECT finished_at FROM runs ORDER BY finished_at")]
    first = int(len(ends) * WARM)
    return {
        "consume_per_s": round((len(ends) - first) / (ends[-1] - ends[first])),
        "cpu_us_per_run": round((after.cpu_s - before.cpu_s) / (count - left - done) * 1e6),
        "memory_mb_early": round(before.memory_mb),
        "memory_mb_late": round(after.memory_mb),
    }


async def _idle(rig: Rig, count: int) -> list[float]:
    """Send one job at a time; give the milliseconds from the request to its start."""
    sent: dict[str, float] = {}
    for _ in range(count):
        at = time.time()
        answer = await rig.http.post(f"/api/v1/apps/{APP}/events/{SHORT.name}/invoke/async", json={"payload": {}})
        sent[answer.raise_for_status().json()["run_id"]] = at
        await asyncio.sleep(0.03)
    await _all_over(rig)
    starts = dict(await rig.database.read("SELECT id, started_at FROM runs"))
    return [(_seconds(starts[run]) - at) * 1000 for run, at in sent.items()][10:]


class _Patience:
    """Gives up on a drain that stands still, with what the processes said last."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._most = -1
        self._since = time.monotonic()

    def at(self, done: int) -> int:
        """Note how far it is, and give that."""
        if done > self._most:
            self._most, self._since = done, time.monotonic()
        elif time.monotonic() - self._since > _STANDSTILL:
            raise RuntimeError(f"no job was done for {_STANDSTILL:g} s:\n{self._rig.last_words()}")
        return done


async def _over(rig: Rig) -> int:
    return int((await rig.database.read("SELECT count(*) FROM runs WHERE finished_at IS NOT NULL"))[0][0])


async def _all_over(rig: Rig) -> None:
    while await rig.database.read("SELECT id FROM runs WHERE finished_at IS NULL LIMIT 1"):  # noqa: ASYNC110
        await asyncio.sleep(0.2)


def _seconds(moment: Any) -> float:
    return moment / 1e6 if isinstance(moment, int) else float(moment.timestamp())
