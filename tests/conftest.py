"""What every test may ask for: servers of its own process, databases of its own, a home of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dispatch.store.session import Store
from tests import servers


@pytest.fixture(scope="session")
def redis_process() -> Iterator[servers.RedisServer]:
    with servers.run_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_process: servers.RedisServer) -> str:
    """An empty Redis; shared by the tests of one pytest worker, one after the other."""
    import redis

    with redis.Redis.from_url(redis_process.url) as client:
        client.flushall()
    return redis_process.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with servers.run_postgres() as url:
        yield url


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{home / 'flo.db'}"
        return
    with servers.new_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(database_url)
    yield opened
    await opened.aclose()
