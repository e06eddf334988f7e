"""Runs in real containers: what is around them, what they may reach, and what happens when something dies."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
from executor_places import Limits, Place, javascript

from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.errors import Unavailable
from schemas.outcome import ErrorKind, Retry
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode, load_settings
from tests.servers import DockerServer
from workers.engine.sink import MemorySink
from workers.executors.docker.sweep import Sweeper
from workers.executors.openings import Openings
from workers.sandboxes.docker.container import OWNER

pytestmark = pytest.mark.timeout(180)

FOREVER = {"id": "it", "node_type": "shell.exec", "config": {"command": "sleep 600", "timeout_ms": 600_000}}


@dataclass
class Lease:
    """What the worker of a test has left of its lease."""

    left: timedelta = timedelta(seconds=30)

    def __call__(self) -> timedelta:
        return self.left


@dataclass
class Opened(Place):
    daemon: Any = None
    owner: str = ""
    lease: Lease = None  # type: ignore[assignment]

    def containers(self) -> list[Any]:
        return list(self.daemon.containers(all=True, filters={"label": f"{OWNER}={self.owner}"}))


class Started(MemorySink):
    """Tells when the first node has started."""

    def __init__(self) -> None:
        super().__init__()
        self.now = asyncio.Event()

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        if happening.type is EventType.NODE_STARTED:
            self.now.set()


@pytest.fixture
def daemon(docker_server: DockerServer) -> Iterator[Any]:
    with closing(docker.APIClient(docker_server.host)) as client:
        yield client


@pytest.fixture
async def place(tmp_path: Path, docker_server: DockerServer, daemon: Any) -> AsyncIterator[Opened]:
    variables = {"FLO_ALLOW_PRIVATE_NETWORK": "true", "FLO_BOX_MEMORY_MB": "512", "FLO_DOCKER_READY": "0"}
    settings = load_settings({"FLO_HOME": str(tmp_path), **variables, **docker_server.environment})
    lease, limits, owner = Lease(), Limits(), f"wrk_{tmp_path.name}_{id(daemon)}"
    openings = Openings(settings, owner=owner, lease_left=lease)
    executor = openings.docker(limits, load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS))
    opened = Opened(executor, limits, daemon, owner, lease)
    yield opened
    await executor.aclose()
    await openings.aclose()
    assert opened.containers() == []


@pytest.fixture
def witness() -> Iterator[str]:
    """A web server of this machine."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"seen")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def shell(script: str, **config: Any) -> dict[str, Any]:
    return {"id": "it", "node_type": "shell.exec", "config": {"command": script, **config}}


async def test_a_run_has_no_rights_and_no_network(place: Opened) -> None:
    look = "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; ls /sys/class/net; touch /opt/x 2>&1 || true"

    said = (await place.result(place.order(shell(look))))["stdout"]

    assert said.split() == [
        "1000", "CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2", "lo",
        "touch:", "cannot", "touch", "'/opt/x':", "Read-only", "file", "system",
    ]  # fmt: skip


async def test_code_cannot_read_the_engine_beside_it(place: Opened) -> None:
    spy = (
        "import os\n"
        "def main():\n"
        "  seen = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "  engines = [p for p in seen if b'runner.py' in open(f'/proc/{p}/cmdline', 'rb').read()]\n"
        "  return [len(engines), [p for p in engines if p != '1' and os.access(f'/proc/{p}/mem', 4)]]\n"
    )

    result = await place.result(place.order({"id": "it", "node_type": "code.python", "config": {"code": spy}}))

    assert result == {"output": [2, []]}, "pid 1, which only reaps, and the engine"


async def test_what_an_app_may_reach_is_reached_through_its_worker(place: Opened, witness: str) -> None:
    fetch = javascript("export default async ({url}) => (await fetch(url)).text()")
    request = {"id": "ask", "node_type": "http.request", "config": {"url": witness}}

    assert await place.result(place.order(fetch, payload={"url": witness})) == {"output": "seen"}
    assert (await place.result(place.order(request)))["body"] == "seen"


async def test_what_an_app_may_not_reach_is_out_of_reach(place: Opened, witness: str) -> None:
    place.limits["acme"] = AppLimits(egress="none")
    request = {"id": "ask", "node_type": "http.request", "config": {"url": witness}}

    assert (await place.error(place.order(request))).kind is ErrorKind.FORBIDDEN
    assert (await place.error(place.order(shell(f"curl -sS {witness} || exec 3<>/dev/tcp/1.1.1.1/80")))).kind is (
        ErrorKind.USER
    )


async def test_a_run_that_wants_more_memory_than_its_container_has_is_told_so(place: Opened) -> None:
    eat = 'python3 -c "x = [bytearray(1 << 20) for _ in range(2000)]"'

    error = await place.error(place.order(shell(eat, memory_mb=4096)))

    assert error.kind is ErrorKind.MEMORY_EXCEEDED


async def test_a_container_that_somebody_kills_is_a_run_that_was_killed(place: Opened) -> None:
    events = Started()
    run = asyncio.create_task(place.error(place.order(FOREVER), events))
    await events.now.wait()

    place.daemon.kill(place.containers()[0]["Id"])

    assert (await run).kind is ErrorKind.KILLED


async def test_a_container_that_somebody_removes_is_a_run_that_is_tried_again(place: Opened) -> None:
    events = Started()
    run = asyncio.create_task(place.run(place.order(FOREVER), events))
    await events.now.wait()

    place.daemon.remove_container(place.containers()[0]["Id"], force=True)

    assert isinstance(await run, Retry)


async def test_a_container_ends_itself_when_its_worker_has_lost_its_lease(place: Opened) -> None:
    events = Started()
    run = asyncio.create_task(place.run(place.order(FOREVER), events))
    await events.now.wait()

    place.lease.left = timedelta(0)

    outcome = await run
    assert isinstance(outcome, Retry) and "lease" in outcome.reason


async def test_a_container_is_named_after_its_run(place: Opened) -> None:
    order = place.order(FOREVER)
    mine = {"event": "rename", "label": f"{OWNER}={place.owner}"}
    renamed = place.daemon.events(since=int(time.time()), decode=True, filters=mine)
    run = asyncio.create_task(place.run(order))

    event = await asyncio.to_thread(next, renamed)

    renamed.close()
    run.cancel()
    await asyncio.wait([run])
    assert event["Actor"]["Attributes"]["name"] == f"flo-{order.run_id}-1"


async def test_only_what_the_operator_allows_can_be_had(place: Opened) -> None:
    order = place.order(javascript("export default () => 1"), backend_config={"image": "docker.io/library/alpine"})

    error = await place.error(order)

    assert error.kind is ErrorKind.FORBIDDEN and "FLO_DOCKER_ALLOW" in error.message


async def test_a_run_may_ask_for_less_memory(place: Opened) -> None:
    events = Started()
    order = place.order(FOREVER, backend_config={"memory_mb": 200, "cpus": 0.5})
    run = asyncio.create_task(place.run(order, events))
    await events.now.wait()

    given = place.daemon.inspect_container(place.containers()[0]["Id"])["HostConfig"]

    run.cancel()
    await asyncio.wait([run])
    assert (given["Memory"], given["NanoCpus"]) == (200 << 20, 500_000_000)


@pytest.mark.parametrize(
    ("variables", "fix"),
    [
        ({"FLO_DOCKER_IMAGE": "flo-runner:nowhere"}, "scripts/docker-runner-image"),
        ({"DOCKER_HOST": "unix:///nowhere/docker.sock"}, "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:9"}, "DOCKER_HOST"),
    ],
)
async def test_what_is_missing_is_said_with_the_fix(
    tmp_path: Path, docker_server: DockerServer, variables: dict[str, str], fix: str
) -> None:
    openings = Openings(load_settings({"FLO_HOME": str(tmp_path), **docker_server.environment, **variables}))
    executor = openings.docker(Limits(), load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS))
    lost = Place(executor)

    with pytest.raises(Unavailable, match=fix):
        await lost.run(lost.order(FOREVER))

    await executor.aclose()
    await openings.aclose()


async def test_the_containers_of_a_dead_worker_are_swept_and_no_others(place: Opened) -> None:
    await place.result(place.order(javascript("export default () => 1")))
    names = {"dead": "wrk_dead", "alive": "wrk_alive", "strange": "wrk_of_another_flo"}
    image = place.executor._settings.docker_image  # type: ignore[attr-defined]
    made = {name: place.daemon.create_container(image, labels={OWNER: owner})["Id"] for name, owner in names.items()}

    async def dead_among(ids: Collection[str]) -> Collection[str]:
        assert set(ids) >= set(names.values())
        return {"wrk_dead"}

    sweeper = Sweeper(place.executor._place.yard.daemon, dead_among, every=timedelta(days=1))  # type: ignore[attr-defined]
    try:
        swept = await sweeper.sweep()
    finally:
        left = {each["Id"] for each in place.daemon.containers(all=True, filters={"label": OWNER})}
        for id_ in left & set(made.values()):
            place.daemon.remove_container(id_)

    assert swept == 1
    assert {name for name, id_ in made.items() if id_ in left} == {"alive", "strange"}


async def test_a_killed_container_ends_with_a_signal_that_is_named(place: Opened) -> None:
    events = Started()
    run = asyncio.create_task(place.error(place.order(FOREVER), events))
    await events.now.wait()

    place.daemon.kill(place.containers()[0]["Id"], signal.SIGKILL)

    assert "SIGKILL" in (await run).message


async def test_an_image_of_other_sources_is_said_to_be_one(place: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    images = place.executor._place.images  # type: ignore[attr-defined]
    old = f"flo-runner:old-{place.owner.lower()}"
    made = place.daemon.create_container(place.executor._settings.docker_image)["Id"]  # type: ignore[attr-defined]
    repository, _, tag = old.partition(":")
    place.daemon.commit(made, repository, tag, changes="LABEL flo.sources=others")
    try:
        await images.need_runner(old)
    finally:
        place.daemon.remove_container(made)
        place.daemon.remove_image(old)

    assert "image.is_of_other_sources" in capsys.readouterr().out
