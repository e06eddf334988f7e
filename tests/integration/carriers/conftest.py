from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.carriers import CREDENTIALS, environment
from tests.integration.carriers.carried import Carrier, open_carried
from tests.integration.workers.worker_process import Lane, WorkerProcess


@pytest.fixture
def database_url(home: Path) -> str:
    """SQLite alone: databases have their tests elsewhere."""
    return f"sqlite:///{home / 'flo.db'}"


@pytest.fixture(params=["sqs", "kafka"])
def carrier(request: pytest.FixtureRequest, home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Carrier:
    """Each carrier but Redis, which `integration/workers` is about."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Carrier(home, database_url, environment(request, request.param))


@pytest.fixture
async def lane(carrier: Carrier) -> AsyncIterator[Lane]:
    async with open_carried(carrier) as opened:
        yield opened


@pytest.fixture
def worker(carrier: Carrier) -> Iterator[WorkerProcess]:
    with carrier.worker() as process:
        yield process
