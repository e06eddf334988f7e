"""A peer's side: no-op tasks on a Redis of its own, the same binary that Flo's lanes are on."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from scripts.peers import peer as peers
from scripts.queuebench.flo_side import WARM
from scripts.queuebench.quantiles import quantiles
from tests import servers

#: Seconds between two looks at a queue: seldom enough not to slow it down.
_LOOK = 0.02


def measure_peer(peer: peers.Peer, *, jobs: int, idle: int) -> dict[str, Any]:
    """Send a backlog, drain it, then send one job at a time."""
    with servers.run_redis() as server, redis.Redis.from_url(server.url) as client, tempfile.TemporaryFile() as out:
        env = peers.environment(server.url)
        said = subprocess.run(peer.sender("noop", jobs), env=env, check=True, capture_output=True, text=True).stdout
        with _workers(peer, env, out):
            rate = _drain(peer, client, jobs)
            sender = subprocess.Popen(
                peer.sender("stamp", idle, "--argument", "stamps:", "--numbered", "--rate", "25", "--say"),
                env=env, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            waits = _waits(client, sender, idle)
    return {"jobs": jobs, "publish_per_s": round(jobs / float(said)), "consume_per_s": round(rate), **quantiles(waits)}


def _drain(peer: peers.Peer, client: redis.Redis, jobs: int) -> float:
    while (left := peer.left(client)) > jobs * (1 - WARM):
        time.sleep(_LOOK)
    started, counted = time.perf_counter(), left
    while left := peer.left(client):
        time.sleep(_LOOK)
    return counted / (time.perf_counter() - started)


def _waits(client: redis.Redis, sender: subprocess.Popen[str], idle: int) -> list[float]:
    """Compare when each job was sent, as its sender says, with the stamp that its task left."""
    assert sender.stdout is not None
    sent = [float(line) for line in sender.stdout][:idle]
    sender.wait()
    waits = []
    for number, at in enumerate(sent):
        _, stamp = client.blpop(f"stamps:{number}")
        waits.append((float(stamp) - at) * 1000)
    return waits[10:]


@contextmanager
def _workers(peer: peers.Peer, env: dict[str, str], out: Any) -> Iterator[None]:
    group = subprocess.Popen(
        peer.command, env=env, cwd=peers.APPS, stdout=out, stderr=out, start_new_session=True
    )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(group.pid, signal.SIGKILL)
        group.wait()
