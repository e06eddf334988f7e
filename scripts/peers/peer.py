"""The peers: how each one's workers are started, and how one sees what is left in its queue."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
_VENV = ROOT / ".cache" / "peers"
_PACKAGES = ("celery[redis]", "dramatiq[redis]", "huey", "taskiq", "taskiq-redis", "redis")


@dataclass(frozen=True, slots=True)
class Peer:
    """A task queue on Redis. Its tasks are in `apps/with_<name>.py`."""

    name: str
    #: Starts two worker processes; `python -m` is put before.
    worker: tuple[str, ...]
    #: Counts what waits and what is not acknowledged.
    left: Callable[[Redis], int]

    @property
    def command(self) -> list[str]:
        return [str(_VENV / "bin/python"), "-m", *self.worker]

    def sender(self, task: str, count: int, *options: str) -> list[str]:
        """Give the command that sends `count` jobs; it prints the seconds that it took."""
        return [str(_VENV / "bin/python"), str(APPS / "send.py"), f"with_{self.name}", task, str(count), *options]


def _celery_left(redis: Redis) -> int:
    return redis.llen("peers") + redis.zcard("unacked_index")


def _dramatiq_left(redis: Redis) -> int:
    return redis.hlen("dramatiq:default.msgs")


def _huey_left(redis: Redis) -> int:
    return redis.llen("huey.redis.peers")


#: Redis 6 does not tell a group's lag.
_LAG = "return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+')"


def _taskiq_left(redis: Redis) -> int:
    groups = redis.xinfo_groups("peers") if redis.exists("peers") else []
    return sum(group["pending"] + redis.eval(_LAG, 1, "peers", group["last-delivered-id"]) for group in groups)


_CELERY = "celery -A with_celery worker -P prefork -c 2 -Q peers -l ERROR --without-gossip --without-mingle"
PEERS = (
    Peer("celery", tuple(_CELERY.split()), _celery_left),
    Peer("dramatiq", ("dramatiq", "with_dramatiq", "--processes", "2", "--threads", "8"), _dramatiq_left),
    Peer("huey", ("huey.bin.huey_consumer", "with_huey.huey", "-w", "2", "-k", "process", "-q"), _huey_left),
    Peer("taskiq", ("taskiq", "worker", "with_taskiq:broker", "--workers", "2", "--log-level", "ERROR"), _taskiq_left),
)


def install() -> None:
    """Make the environment, once; it is in the cache, not in Flo's lock."""
    if (_VENV / ".complete").exists():
        return
    uv = shutil.which("uv") or str(ROOT / ".bootstrap/bin/uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", _VENV], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", _VENV / "bin/python", *_PACKAGES], check=True)
    (_VENV / ".complete").touch()


def versions() -> dict[str, str]:
    """Tell which release of each peer is installed."""
    ask = "import importlib.metadata as m; print(*(m.version(n) for n in ('celery', 'dramatiq', 'huey', 'taskiq')))"
    said = subprocess.run([_VENV / "bin/python", "-c", ask], check=True, capture_output=True, text=True).stdout
    return dict(zip(("celery", "dramatiq", "huey", "taskiq"), said.split(), strict=True))


def environment(redis_url: str) -> dict[str, str]:
    """Give what the peers' processes need."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLO_", "PYTHONPATH"))}
    return {**kept, "REDIS_URL": redis_url, "PYTHONPATH": str(APPS), "C_FORCE_ROOT": "1"}
