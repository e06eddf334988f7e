"""Statements for many rows, on a database in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, bindparam, create_engine, insert, update

from dispatch.store.many import Many
from dispatch.store.tables import Instant

metadata = MetaData()
lamps = Table(
    "lamps", metadata, Column("id", Integer, primary_key=True), Column("room", String(20)), Column("lit_at", Instant)
)
chairs = Table(
    "chairs", metadata, Column("id", Integer, primary_key=True), Column("colour", String(20), default="white")
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        yield connection
    engine.dispose()


def test_values_are_bound_as_their_columns_say(connection: Connection) -> None:
    Many(insert(lamps), "id", "lit_at").execute(connection, [{"id": 1, "lit_at": NOON}, {"id": 2, "lit_at": None}])

    assert connection.execute(lamps.select()).all() == [(1, None, NOON), (2, None, None)]


def test_what_the_statement_gives_goes_along_with_every_row(connection: Connection) -> None:
    connection.execute(insert(lamps), [{"id": number, "room": "hall", "lit_at": None} for number in (1, 2)])
    move = update(lamps).where(lamps.c.id == bindparam("which")).values(room="attic", lit_at=bindparam("at"))

    Many(move).execute(connection, [{"which": 1, "at": NOON}, {"which": 2, "at": NOON}])

    assert connection.execute(lamps.select()).all() == [(1, "attic", NOON), (2, "attic", NOON)]


def test_a_default_made_in_python_is_refused(connection: Connection) -> None:
    with pytest.raises(AssertionError, match="default made in Python"):
        Many(insert(chairs), "id").execute(connection, [{"id": 1}])
