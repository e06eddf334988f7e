"""What every test may ask for: servers of its own process, databases of its own, a home of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
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
def sqs_server() -> Iterator[servers.SqsServer]:
    with servers.run_sqs() as server:
        yield server


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka that all pytest workers of one run share."""
    mine = tmp_path_factory.getbasetemp()
    with servers.share_kafka(mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) as address:
        yield address


@pytest.fixture(scope="session")
def docker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.DockerServer]:
    """A Docker daemon with the runner image, which all pytest workers of one run share."""
    mine = tmp_path_factory.getbasetemp()
    with servers.share_docker(mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) as server:
        yield server


@pytest.fixture(scope="session")
def lambda_server() -> Iterator[servers.LambdaServer]:
    """A Lambda with functions that run Flo, each four times at once."""
    with servers.run_lambda() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with servers.run_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def kubernetes_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that name a cluster."""
    from tests.k8s_double.running import a_cluster

    with a_cluster(tmp_path_factory.mktemp("kubernetes")) as variables:
        yield variables


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """A database without tables, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{home / 'flo.db'}"
        return
    with servers.new_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """A database with Flo's tables and nothing in them, once of each kind: a copy, as migrating takes longer."""
    if request.param == "sqlite":
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(request.getfixturevalue("sqlite_template"), home / "flo.db")
        yield f"sqlite:///{home / 'flo.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    with servers.new_database(server, template=request.getfixturevalue("postgres_template")) as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "flo.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    with servers.new_database(postgres_server) as url:
        asyncio.run(_migrate(url))
        yield url.rsplit("/", 1)[1]


async def _migrate(url: str) -> None:
    await (await Store.open(url)).aclose()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(database_url)
    yield opened
    await opened.aclose()
