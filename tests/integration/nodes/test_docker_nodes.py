"""docker.run, and sandbox.exec in a container, wherever the engine is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from schemas.catalog import load_catalog
from schemas.outcome import ErrorKind
from schemas.run import EventType
from schemas.settings import ExecutionMode, load_settings
from tests.contract.executor_places import Limits, Place
from tests.servers import DockerServer
from workers.engine.sink import MemorySink
from workers.executors.modes import ModeExecutor
from workers.executors.openings import Openings

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["SANDBOX_CODE_ONLY", "UNSANDBOXED", "docker"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, docker_server: DockerServer) -> AsyncIterator[Place]:
    """A worker whose engine is in its own process, or in a container."""
    mode = "UNSANDBOXED" if request.param == "docker" else request.param
    known = {"FLO_HOME": str(tmp_path), "FLO_EXECUTION_MODE": mode, "FLO_V8_HOSTS": "1", "FLO_DOCKER_READY": "0"}
    settings = load_settings({**known, **docker_server.environment})
    openings, limits, catalog = Openings(settings), Limits(), load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    executor = (
        openings.docker(limits, catalog)
        if request.param == "docker"
        else ModeExecutor(openings.all(), settings=settings, limits=limits, catalog=catalog)
    )
    yield Place(executor, limits)
    await executor.aclose()
    await openings.aclose()


@pytest.fixture
def image(docker_server: DockerServer) -> str:
    return docker_server.image


def image_node(image: str, **config: Any) -> dict[str, Any]:
    return {"id": "it", "node_type": "docker.run", "config": {"image": image, **config}}


async def test_an_image_reads_stdin_and_its_lines_are_told(place: Place, image: str) -> None:
    events = MemorySink()
    node = image_node(image, script='tr a-z A-Z; echo "to $WHOM" >&2', env={"WHOM": "you"}, stdin="hello\n")

    result = await place.result(place.order(node), events)

    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("HELLO", "to you", 0)
    logs = [said.data["message"] for said in events.happenings if said.type is EventType.LOG]
    assert sorted(logs) == ["HELLO", "to you"]


async def test_an_image_has_no_rights_and_no_network(place: Place, image: str) -> None:
    look = "id -u; ls /sys/class/net; grep CapEff /proc/self/status; touch /x 2>/dev/null || echo read-only"

    assert (await place.result(place.order(image_node(image, script=look))))["stdout"].split() == [
        "1000", "lo", "CapEff:", "0000000000000000", "read-only",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"script": "exit 3"}, ErrorKind.USER),
        ({"script": "sleep 60", "timeout_ms": 500}, ErrorKind.TIMED_OUT),
        ({"script": "yes", "max_output_bytes": 1000}, ErrorKind.OUTPUT_EXCEEDED),
        (
            {"script": "exec tail /dev/zero", "memory_mb": 32},
            ErrorKind.MEMORY_EXCEEDED,
        ),
        ({"script": "true", "image": "docker.io/library/nothing-such"}, ErrorKind.FORBIDDEN),
        ({"script": "true", "network": True}, ErrorKind.FORBIDDEN),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_goes_wrong_is_told_apart(place: Place, image: str, config: Any, kind: ErrorKind) -> None:
    error = await place.error(place.order(image_node(**{"image": image, **config})))

    assert (error.kind, error.node_id) == (kind, "it")


async def test_a_later_attempt_ends_what_an_earlier_one_left(
    place: Place, image: str, docker_server: DockerServer
) -> None:
    order = place.order(image_node(image, script="echo done"), attempt=2)
    labels = {"flo.worker": "wrk_gone", "flo.run": order.run_id, "flo.attempt": "1"}
    with closing(docker.APIClient(docker_server.host)) as daemon:
        left = daemon.create_container(image, entrypoint=["sleep", "600"], labels=labels)["Id"]
        daemon.start(left)

        await place.result(order)

        assert daemon.containers(all=True, filters={"id": left}) == []


@pytest.mark.parametrize("place", ["UNSANDBOXED", "docker"], indirect=True)
async def test_files_go_into_a_container_and_come_out(place: Place) -> None:
    config = {"command": "sort names.txt > sorted.txt; hostname", "files": {"names.txt": "bo\nal\n"}}
    node = {
        "id": "it",
        "node_type": "sandbox.exec",
        "config": {**config, "sandbox": "docker", "collect": ["sorted.txt"]},
    }

    result = await place.result(place.order(node))

    assert result["files"] == {"sorted.txt": "al\nbo\n"}
    assert len(result["stdout"]) == 12, "the name of a container of its own"
