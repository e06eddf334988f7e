"""A whole Flo: an API, a scheduler and three workers as real processes, on a broker and a database that may go away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from scripts.chaosrig.brokers import Broker, open_broker
from scripts.chaosrig.databases import Database, open_database
from tests import servers

ROOT = Path(__file__).resolve().parents[2]

#: Seconds after its last heartbeat at which a worker is taken for dead. Kafka's brokers allow no less than six for the
#: session of a group's member, and its partitions wait for that.
LEASES = {"redis": 2.0, "sqs": 2.0, "kafka": 6.0}
WORKERS = 3
#: The troubles come so fast that an honest run may lose its worker again and again.
_ATTEMPTS = 50
#: Longest wait for the API, in seconds.
_START = 60.0


@dataclass(frozen=True, slots=True)
class Killed:
    """A worker that was killed: who, and when by the machine's clock."""

    pid: int
    at: float


class Rig:
    """The processes, each of which may be killed and started again."""

    def __init__(
        self,
        home: Path,
        broker: Broker,
        database: Database,
        *,
        workers: int,
        concurrency: int,
        lease: float,
        max_attempts: int,
    ) -> None:
        self.home = home
        self.broker = broker
        self.database = database
        self.lease = lease
        self._concurrency = concurrency
        self.killed: list[Killed] = []
        self.key = secrets.token_urlsafe(24)
        #: Where processes put what is to be gone once they are.
        self.scratch = home / "tmp"
        self.scratch.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        self.environment = {
            **kept,
            **broker.environment,
            "FLO_HOME": str(home),
            "FLO_DATABASE_URL": database.url,
            "FLO_API_KEY": self.key,
            "FLO_LEASE_SECONDS": str(lease),
            "FLO_ALLOW_PRIVATE_NETWORK": "true",
            "FLO_MAX_ATTEMPTS": str(max_attempts),
            "FLO_V8_HOSTS": "1",
            "FLO_LOG_LEVEL": "warning",
            "TMPDIR": str(self.scratch),
        }
        self.log = home / "processes.log"
        self._log = self.log.open("ab")
        self.port = servers.free_port()
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {self.key}"}, timeout=10
        )
        self.api = self._start_api()
        self.tick = self._start_tick()
        self.workers = [self._start_worker(place) for place in range(workers)]

    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        """Name every process."""
        workers = {f"worker {place}": worker for place, worker in enumerate(self.workers)}
        return {"api": self.api, "tick": self.tick, **workers}

    async def ready(self) -> None:
        """Wait until the API answers."""
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if (await self.http.get("/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the API did not become ready:\n{self.last_words()}")

    async def workers_up(self) -> None:
        """Wait until every worker has its row in SQL, and so is about to take jobs: a start may take some seconds."""
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            known = {row[0] for row in await self.database.read("SELECT pid FROM workers WHERE stopped_at IS NULL")}
            if {worker.pid for worker in self.workers} <= known:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"a worker did not start:\n{self.last_words()}")

    async def kill_worker(self, place: int) -> None:
        """Kill a worker with its whole family, and start another in its place."""
        await self.end_worker(place)
        self.workers[place] = self._start_worker(place)

    async def end_worker(self, place: int) -> None:
        worker = self.workers[place]
        self.killed.append(Killed(worker.pid, time.time()))
        await _kill(worker)

    def add_worker(self) -> None:
        self.workers.append(self._start_worker(len(self.workers)))

    def start_worker(self, place: int) -> None:
        self.workers[place] = self._start_worker(place)

    async def kill_api(self) -> None:
        await _kill(self.api)
        self.api = self._start_api()
        await self.ready()

    async def kill_tick(self) -> None:
        await _kill(self.tick)
        self.tick = self._start_tick()

    def mend(self) -> None:
        """Start again what has ended by itself, as a supervisor does: who starts while SQL is away gives up."""
        if self.api.poll() is not None:
            self.api = self._start_api()
        if self.tick.poll() is not None:
            self.tick = self._start_tick()
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[place] = self._start_worker(place)

    async def heal(self) -> None:
        """Let everything be there again."""
        self.mend()
        await self.ready()

    async def stop(self) -> None:
        """Stop everything in order; kill what does not."""
        living = [process for process in self.processes().values() if process.poll() is None]
        for process in living:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in living:
            try:
                await asyncio.to_thread(process.wait, 60)
            except subprocess.TimeoutExpired:
                await _kill(process)

    async def aclose(self) -> None:
        await self.stop()
        await self.http.aclose()
        self._log.close()

    def last_words(self, most: int = 40) -> str:
        """Give the end of what the processes have logged."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-most:])

    def _start_api(self) -> subprocess.Popen[bytes]:
        return self._start("scheduler", "api", "--port", str(self.port))

    def _start_tick(self) -> subprocess.Popen[bytes]:
        return self._start("scheduler", "tick")

    def _start_worker(self, place: int) -> subprocess.Popen[bytes]:
        return self._start("workers", "--name", f"chaos-{place}", "--concurrency", str(self._concurrency))

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", *command], env=self.environment, cwd=ROOT, stdout=self._log, stderr=self._log
        )


async def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    await asyncio.to_thread(process.wait)


@contextlib.asynccontextmanager
async def open_rig(
    carrier: str,
    db: str,
    *,
    workers: int = WORKERS,
    concurrency: int = 16,
    lease: float | None = None,
    max_attempts: int = _ATTEMPTS,
) -> AsyncIterator[Rig]:
    """Run a Flo on a broker and a database of its own until the end of the block."""
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flo-chaos-")))
        broker = await stack.enter_async_context(open_broker(carrier))
        database = await stack.enter_async_context(open_database(db, home))
        rig = Rig(
            home,
            broker,
            database,
            workers=workers,
            concurrency=concurrency,
            lease=lease or LEASES[carrier],
            max_attempts=max_attempts,
        )
        stack.push_async_callback(rig.aclose)
        await rig.ready()
        if any(process.poll() is not None for process in rig.processes().values()):
            raise RuntimeError(f"a process ended as soon as it was started:\n{rig.last_words()}")
        yield rig
