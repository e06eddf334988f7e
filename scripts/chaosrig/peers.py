"""The same kills for Flo and for its peers: all workers at once, again and again, while jobs come at a steady rate.

A job calls the witness, once. Lost is a job that never called; doubled one that called more than once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from scripts.chaosrig.flows import APP, CALL, push
from scripts.chaosrig.load import wait_for_the_end
from scripts.chaosrig.rig import Rig, open_rig
from scripts.chaosrig.witness import Witness, open_witness
from scripts.peers import peer as peers
from tests import servers

#: Jobs per second.
_RATE = 60.0
#: Seconds without any progress after which nothing more is expected: Celery looks for lost messages every ten looks.
_SILENCE = 75.0


async def compare(jobs: int, kills: int) -> dict[str, dict[str, Any]]:
    """Put Flo and each peer through the same; give each one's figures."""
    await asyncio.to_thread(peers.install)
    found = {"flo": await _flo(jobs, kills)}
    for peer in peers.PEERS:
        found[peer.name] = await _peer(peer, jobs, kills)
    return found


async def _flo(jobs: int, kills: int) -> dict[str, Any]:
    async with open_witness() as witness, open_rig("redis", "sqlite", workers=2) as rig:
        await push(rig, witness.port)
        accepted: set[str] = set()
        feeding = asyncio.create_task(_feed_flo(rig, jobs, accepted))

        async def kill_all() -> None:
            await asyncio.gather(*(rig.end_worker(place) for place in range(2)))
            for place in range(2):
                rig.start_worker(place)

        await _kill_while(feeding, jobs / _RATE, kills, kill_all)
        await wait_for_the_end(rig, patience=_SILENCE)
        called = Counter({run: len(calls) for run, calls in witness.calls.items()})
        return _figures(jobs, len(accepted - called.keys()), called)


async def _feed_flo(rig: Rig, jobs: int, accepted: set[str]) -> None:
    started = time.monotonic()
    for number in range(jobs):
        await asyncio.sleep(max(0.0, started + number / _RATE - time.monotonic()))
        answer = await rig.http.post(f"/api/v1/apps/{APP}/events/{CALL.name}/invoke/async", json={"payload": {}})
        answer.raise_for_status()
        accepted.add(answer.json()["run_id"])


async def _peer(peer: peers.Peer, jobs: int, kills: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="flo-peers-") as folder:
        server = servers.RedisServer(Path(folder), servers.free_port())
        server.start()
        try:
            async with open_witness() as witness:
                return await _put_through(peer, witness, server.url, jobs, kills)
        finally:
            server.stop()


async def _put_through(peer: peers.Peer, witness: Witness, url: str, jobs: int, kills: int) -> dict[str, Any]:
    env = peers.environment(url)
    group = _start(peer, env)
    address = f"http://127.0.0.1:{witness.port}/job/"
    sender = peer.sender("call", jobs, "--argument", address, "--numbered", "--rate", str(_RATE))
    sending = await asyncio.create_subprocess_exec(*sender, env=env, stdout=subprocess.DEVNULL)

    async def kill_all() -> None:
        nonlocal group
        await _kill_group(group)
        group = _start(peer, env)

    try:
        await _kill_while(asyncio.ensure_future(sending.wait()), jobs / _RATE, kills, kill_all)
        await _wait_for_silence(witness, jobs)
    finally:
        await _kill_group(group)
    called = Counter(witness.others)
    return _figures(jobs, jobs - len(called), called)


def _start(peer: peers.Peer, env: dict[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: its whole family can be killed at once.
    return subprocess.Popen(
        peer.command, env=env, cwd=peers.APPS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


async def _kill_group(group: subprocess.Popen[bytes]) -> None:
    os.killpg(group.pid, signal.SIGKILL)
    await asyncio.to_thread(group.wait)


async def _kill_while(
    feeding: asyncio.Future[Any], lasts: float, kills: int, kill_all: Callable[[], Awaitable[None]]
) -> None:
    for _ in range(kills):
        await asyncio.sleep(lasts / (kills + 1))
        await kill_all()
    await feeding


async def _wait_for_silence(witness: Witness, jobs: int) -> None:
    """Return once every job has called, or nobody has for a long while."""
    last, since = -1, time.monotonic()
    while len(set(witness.others)) < jobs and time.monotonic() - since < _SILENCE:
        if len(witness.others) != last:
            last, since = len(witness.others), time.monotonic()
        await asyncio.sleep(0.5)


def _figures(jobs: int, lost: int, called: Counter[str]) -> dict[str, Any]:
    return {"jobs": jobs, "lost": lost, "doubled": sum(count > 1 for count in called.values())}
