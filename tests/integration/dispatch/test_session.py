from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from dispatch.store.migrate import newest_revision
from dispatch.store.session import Store, is_outage
from dispatch.store.tables import Table
from schemas.errors import SettingsError, Unavailable
from tests import servers


async def test_a_new_database_has_exactly_the_tables_of_the_code(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))

    assert await store.transact(differences) == []


async def test_many_processes_may_open_a_new_database_at_once(empty_database_url: str) -> None:
    stores = await asyncio.gather(*(Store.open(empty_database_url) for _ in range(5)))

    async with stores[0].read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM runs")) == 0
    for store in stores:
        await store.aclose()


def test_the_newest_migration_is_the_one_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", "dispatch/store/migrations")

    assert ScriptDirectory.from_config(config).get_current_head() == newest_revision()


async def test_a_database_that_flo_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"names the database 'mysql'; Flo knows sqlite:///path"):
        await Store.open("mysql://here/flo")


async def test_an_url_that_is_none_is_explained() -> None:
    with pytest.raises(SettingsError, match="can't be read as an URL"):
        await Store.open("just words")


async def test_a_home_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")

    with pytest.raises(Unavailable, match="make its folder writable, or set FLO_HOME to another folder"):
        await Store.open(f"sqlite:///{tmp_path / 'home' / 'flo.db'}")


async def test_a_file_that_is_no_database_is_explained_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "flo.db").write_text("a shopping list, not a database " * 100)

    with pytest.raises(Unavailable, match="file is not a database"):
        await Store.open(f"sqlite:///{tmp_path / 'flo.db'}")

    assert (tmp_path / "flo.db").read_text().startswith("a shopping list")


async def test_a_postgres_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(Unavailable, match=r"flo:\*\*\*@127\.0\.0\.1:1/flo can't be reached") as caught:
        await Store.open("postgresql://flo:secret@127.0.0.1:1/flo")

    assert "secret" not in str(caught.value)


async def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "flo.db"
    store = await Store.open(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    writing = asyncio.create_task(store.transact(lambda connection: connection.execute(text("DELETE FROM outbox"))))
    await asyncio.sleep(0)
    other.execute("ROLLBACK")
    await writing

    other.close()
    await store.aclose()


async def test_a_postgres_that_ends_a_connection_is_an_outage_and_no_mistake(postgres_server: str) -> None:
    with servers.new_database(postgres_server) as url:
        store = await Store.open(url)

        with pytest.raises(DBAPIError) as ended:
            async with store.write() as connection:
                await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        await store.aclose()
    assert is_outage(ended.value)


async def test_a_statement_that_is_wrong_is_no_outage(store: Store) -> None:
    with pytest.raises(DBAPIError) as refused:
        async with store.write() as connection:
            await connection.execute(text("INSERT INTO apps (name) VALUES (NULL)"))

    assert not is_outage(refused.value)
