"""INSERT that may find the row already there; SQLite and Postgres say it alike, SQLAlchemy keeps two words for it."""

from __future__ import annotations

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert_or(connection: AsyncConnection | Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT that `on_conflict_do_nothing` or `on_conflict_do_update` can be called on."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
