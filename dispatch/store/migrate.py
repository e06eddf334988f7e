"""Brings a database to the newest schema when a process opens it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

#: Any number will do, as long as every Flo process uses the same one.
_ADVISORY_LOCK = 0x666C6F

_MIGRATIONS = Path(__file__).parent / "migrations"


def newest_revision() -> str:
    """Name the newest schema: migrations are numbered, and their files are named after their numbers."""
    return max(file.name.split("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


async def migrate(engine: AsyncEngine) -> None:
    """Upgrade to head; of several processes that start together, one does it and the others wait."""
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    if _revision_of(connection) == newest_revision():
        return
    # Imported only when there is something to do: it takes longer than the rest of a start.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
