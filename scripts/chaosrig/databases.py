"""SQLite and Postgres, as something that can be away for a while."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from tests import servers


class Database(Protocol):
    url: str

    async def away(self, seconds: float) -> None:
        """Let nobody write, or even connect, for this long."""

    async def read(self, query: str) -> list[tuple[Any, ...]]: ...


@contextlib.asynccontextmanager
async def open_database(kind: str, home: Path) -> AsyncIterator[Database]:
    if kind == "sqlite":
        yield SqliteDatabase(home / "flo.db")
        return
    with servers.start_postgres() as server:
        yield PostgresDatabase(server)


class SqliteDatabase:
    """A file; whoever holds its lock keeps all others from writing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    async def away(self, seconds: float) -> None:
        await asyncio.to_thread(self._lock, seconds)

    async def read(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(query).fetchall()

    def _lock(self, seconds: float) -> None:
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None, timeout=30)) as blocker:
            blocker.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            blocker.execute("ROLLBACK")


class PostgresDatabase:
    """A server, which is stopped as a crash would stop it and recovers at its next start."""

    def __init__(self, server: servers.PostgresServer) -> None:
        self._server = server
        self.url = server.url

    async def away(self, seconds: float) -> None:
        await asyncio.to_thread(self._server.stop, signal.SIGQUIT)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._server.start)

    async def read(self, query: str) -> list[tuple[Any, ...]]:
        import asyncpg

        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()
