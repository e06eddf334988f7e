"""The Docker daemon is killed under a run: nobody can end the container any more, so it ends itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import docker
import pytest
from executor_places import Limits, Place

from schemas.catalog import load_catalog
from schemas.errors import Unavailable
from schemas.outcome import Retry
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode, load_settings
from tests.servers import DockerDaemon, DockerServer, own_docker
from workers.engine.sink import MemorySink
from workers.executors.openings import Openings

pytestmark = pytest.mark.timeout(180)

FOREVER = {"id": "it", "node_type": "shell.exec", "config": {"command": "sleep 600", "timeout_ms": 600_000}}


class Started(MemorySink):
    """Tells when the first node has started."""

    def __init__(self) -> None:
        super().__init__()
        self.now = asyncio.Event()

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        if happening.type is EventType.NODE_STARTED:
            self.now.set()


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def mortal() -> Iterator[tuple[DockerDaemon, DockerServer]]:
    with own_docker() as given:
        yield given


@pytest.fixture
async def place(mortal: tuple[DockerDaemon, DockerServer], tmp_path: Path) -> AsyncIterator[Place]:
    settings = load_settings({"FLO_HOME": str(tmp_path), "FLO_DOCKER_READY": "0", **mortal[1].environment})
    openings = Openings(settings, owner="wrk_mortal", lease_left=lambda: timedelta(seconds=3))
    executor = openings.docker(Limits(), load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS))
    yield Place(executor)
    await executor.aclose()
    await openings.aclose()


async def test_a_run_is_given_back_only_when_its_container_has_ended_itself(
    mortal: tuple[DockerDaemon, DockerServer], place: Place
) -> None:
    daemon, server = mortal
    events = Started()
    run = asyncio.create_task(place.run(place.order(FOREVER), events))
    await events.now.wait()
    with closing(docker.APIClient(server.host)) as client:
        (container,) = client.containers()
        first_process = client.inspect_container(container["Id"])["State"]["Pid"]

    daemon.kill()
    outcome = await run

    try:
        assert isinstance(outcome, Retry) and "does not answer" in outcome.reason
        assert not lives(first_process)
        with pytest.raises(Unavailable, match="DOCKER_HOST"):
            await place.run(place.order(FOREVER))
    finally:
        daemon.start()  # it finds what it has left, and can end in order
