"""The door to SQL: opens the database, brings it to the newest schema, and hands out transactions."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from dispatch.store.migrate import migrate
from schemas.errors import SettingsError, Unavailable

Answer = TypeVar("Answer")
#: What every connection of a store knows.
Options: TypeAlias = dict[str, Any]

#: How long a writer waits for another process's transaction on SQLite, in milliseconds.
_BUSY_TIMEOUT_MS = 10_000
#: Seconds between looks whether its transaction is over, where a writer looks for itself.
_LOOK_S = 0.0005

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


class Store:
    """One process's connections to SQL."""

    def __init__(self, engine: AsyncEngine, quick: Engine | None) -> None:
        self._engine = engine
        self._quick = quick
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        self.sqlite = engine.dialect.name == "sqlite"
        # SQLite takes one writer at a time; waiting here in turn is fair and wakes at once, its own busy handler polls.
        self._writing = asyncio.Semaphore(1 if self.sqlite else 8)

    @classmethod
    async def open(cls, url: str, *, blob_threshold: int | None = 256 * 1024) -> Store:
        """Open and migrate. Safe when several processes start at once.

        Values whose JSON is longer than `blob_threshold` bytes are kept beside their rows (`blobs.py`). Raises
        SettingsError for an URL that names no known database, Unavailable when it can't be reached or written.
        """
        address = _address(url)
        options: Options = {"flo_blob_threshold": blob_threshold}
        engine = _engine(address, options)
        try:
            if address.get_backend_name() == "sqlite":
                await asyncio.to_thread(_make_file, Path(address.database or ""))
            await migrate(engine)
        except (OSError, DBAPIError, sqlite3.Error) as error:
            await engine.dispose()
            raise Unavailable(_explain(address, error)) from error
        return cls(engine, _quick_engine(address, options))

    async def transact(self, work: Callable[[Connection], Answer]) -> Answer:
        """Do `work` on a plain connection in one transaction; for the busy writes.

        On SQLite it runs in a thread of its own: one hand-over for the whole transaction, where the async driver
        makes four for each statement.
        """
        if self._quick is None:
            async with self.write() as connection:
                return await connection.run_sync(work)
        async with self._writing:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)

    def _transact(self, work: Callable[[Connection], Answer]) -> Answer:
        assert self._quick is not None
        with self._quick.begin() as connection:
            return work(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Hold one transaction; it commits at the end of the block and rolls back on an exception."""
        async with self._writing, self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Hold a connection for reading, with a snapshot that is not held open."""
        async with self._engine.connect() as connection:
            yield await connection.execution_options(flo_read=True)

    async def aclose(self) -> None:
        self._thread.shutdown()
        if self._quick is not None:
            self._quick.dispose()
        await self._engine.dispose()


#: Classes of SQLSTATE that speak of the server and not of the statement: connection exception, transaction rollback (a
#: deadlock that the server has ended), insufficient resources, operator intervention (a server that stops says so
#: before it closes the connection).
_AWAY = ("08", "40", "53", "57P")


def is_outage(error: BaseException) -> bool:
    """Tell a database that is away or busy (worth trying again) from a statement that is wrong."""
    if isinstance(error, OperationalError):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or str(getattr(error.orig, "sqlstate", "")).startswith(_AWAY)
    return isinstance(error, ConnectionError | TimeoutError | OSError)


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise SettingsError(f"FLO_DATABASE_URL can't be read as an URL: {error}") from None
    driver = _DRIVERS.get(address.drivername)
    if driver is None:
        raise SettingsError(
            f"FLO_DATABASE_URL names the database {address.drivername!r}; Flo knows sqlite:///path and "
            "postgresql://user:password@host/name"
        )
    return address.set(drivername=driver)


def _make_file(path: Path) -> None:
    """Make a database that is not there yet, and have it write ahead: it stays so, whoever opens it.

    Of several processes that turn a database to this at once, SQLite refuses all but one without waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    patience = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > patience:
                    raise
                time.sleep(_LOOK_S)
            else:
                return


def _engine(address: URL, options: Options) -> AsyncEngine:
    if address.get_backend_name() != "sqlite":
        return create_async_engine(
            address, pool_size=10, max_overflow=10, pool_pre_ping=True, pool_recycle=1800, execution_options=options
        )
    engine = create_async_engine(address, pool_size=5, max_overflow=20, execution_options=options)
    _prepare_sqlite(engine.sync_engine, busy_timeout_ms=_BUSY_TIMEOUT_MS, begin=_begin)
    return engine


def _quick_engine(address: URL, options: Options) -> Engine | None:
    if address.get_backend_name() != "sqlite":
        return None
    engine = create_engine(
        address.set(drivername="sqlite"), connect_args={"check_same_thread": False}, execution_options=options
    )
    # Nothing but the beginning waits for others here: a transaction that has begun has the lock, and readers have none.
    _prepare_sqlite(engine, busy_timeout_ms=0, begin=_begin_soon)
    return engine


def _prepare_sqlite(engine: Engine, *, busy_timeout_ms: int, begin: Callable[[Connection], None]) -> None:
    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # Transactions are begun by hand below: the driver's own implicit BEGIN is deferred and deadlocks on upgrade.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
        # An accepted run survives a power cut, not only a crash of the process.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("flo_read"):
            begin(connection)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_soon(connection: Connection) -> None:
    """Begin as soon as no other process writes. SQLite itself looks again after 1, 2, 5, 10 ms and more."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while time.monotonic() < deadline:
        try:
            connection.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                break
            time.sleep(_LOOK_S)
        else:
            return
    _begin(connection)  # raises what SQLAlchemy makes of the trouble


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _explain(address: URL, error: BaseException) -> str:
    shown = address.render_as_string(hide_password=True)
    if address.get_backend_name() == "sqlite":
        return (
            f"the database {address.database} can't be opened for writing ({_first_line(error)}); "
            "make its folder writable, or set FLO_HOME to another folder"
        )
    return f"the database {shown} can't be reached ({_first_line(error)}); start it, or correct FLO_DATABASE_URL"


def _first_line(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return (str(cause).splitlines() or [type(cause).__name__])[0]
