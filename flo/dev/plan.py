"""Which programs `flo dev` runs, and how each is called."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from flo.dev.child import Program
from flo.home import Home

#: Everything is bound to this machine alone.
LOOPBACK = "127.0.0.1"
#: What redis-server prints once it takes connections.
_REDIS_READY = "Ready to accept connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user chose."""

    home: Home
    port: int
    flower_port: int | None
    redis_port: int
    #: A Redis of the user's own; None means the embedded one.
    redis_url: str | None
    workers: int

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def flower_url(self) -> str | None:
        return None if self.flower_port is None else f"http://{LOOPBACK}:{self.flower_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    redis: Program | None
    #: Everything else, in the order in which it is stopped; one rank is stopped together.
    ranks: tuple[tuple[Program, ...], ...]
    api_port: int

    @property
    def names(self) -> list[str]:
        programs = [program for rank in self.ranks for program in rank]
        return [program.name for program in [*((self.redis,) if self.redis else ()), *programs]]


def plan(choices: Choices, redis_server: Path | None) -> Plan:
    """Lay out the family. `redis_server` is the binary to run; None when the user has a Redis already."""
    redis, redis_url = None, choices.redis_url or ""
    if redis_server is not None:
        password = secrets.token_urlsafe(24)
        redis = _redis(redis_server, choices.home, choices.redis_port, password)
        redis_url = f"redis://:{password}@{LOOPBACK}:{choices.redis_port}/0"
    env = {"FLO_HOME": str(choices.home.path), "REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1"}
    workers = tuple(_worker(number, env) for number in range(1, choices.workers + 1))
    tick = Program(name="tick", argv=_module("scheduler", "tick"), env=env)
    api = Program(
        name="api", argv=_module("scheduler", "api", "--host", LOOPBACK, "--port", str(choices.port)), env=env
    )
    flower = () if choices.flower_port is None else (_flower(choices.flower_port, env),)
    return Plan(redis=redis, ranks=(workers, (tick, api, *flower)), api_port=choices.port)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    """Call a module of ours; -P keeps the user's folder off the path, so that no file there can take its place."""
    return (sys.executable, "-P", "-m", name, *arguments)


def _worker(number: int, env: Mapping[str, str]) -> Program:
    name = f"worker-{number}"
    # A worker first finishes what it holds.
    return Program(name=name, argv=_module("workers", "--name", name), env=env, grace=timedelta(seconds=30))


def _flower(port: int, env: Mapping[str, str]) -> Program:
    argv = _module("dispatch.telemetry.flower", "--address", LOOPBACK, "--port", str(port))
    return Program(name="flower", argv=argv, env=env, essential=False)


def _redis(binary: Path, home: Home, port: int, password: str) -> Program:
    config = [
        f"bind {LOOPBACK}",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{_quoted(str(home.redis_folder))}"',
        # Every write is logged, and the log is synced each second, so the queues outlive a power cut.
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "loglevel notice",
    ]
    return Program(
        name="redis",
        argv=(str(binary), "-"),
        stdin="\n".join([*config, ""]).encode(),
        grace=timedelta(seconds=10),
        ready_line=_REDIS_READY,
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
