"""Nodes that run alone in containers: the same seam as boxes, with real containers of a real daemon."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import docker
import pytest

from schemas.app import AppLimits
from schemas.catalog import load_catalog
from schemas.outcome import ErrorKind, Failed, Succeeded
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode, load_settings
from tests.contract.executor_places import Limits, Place
from tests.servers import DockerServer
from workers.engine.sink import MemorySink
from workers.executors.modes import ModeExecutor
from workers.executors.openings import Openings
from workers.sandboxes.docker.container import OWNER


@asynccontextmanager
async def opened(server: DockerServer, home: Path, **variables: str) -> AsyncIterator[Place]:
    """Open a worker whose runs are in isolates, and whose nodes that run alone are in containers."""
    settings = load_settings(
        {
            "FLO_HOME": str(home), "FLO_EXECUTION_MODE": "SANDBOX_CODE_ONLY", "FLO_V8_HOSTS": "1",
            "FLO_SOLO": "docker", "FLO_DOCKER_READY": "1", **server.environment, **variables,
        }
    )  # fmt: skip
    limits = Limits()
    owner = f"wrk_{secrets.token_hex(4)}"
    openings = Openings(settings, limits=limits, owner=owner)
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    modes = ModeExecutor(openings.all(), settings=settings, limits=limits, catalog=catalog)
    try:
        await modes.start()
        yield Place(modes, limits)
    finally:
        await modes.aclose()
        await openings.aclose()
    with closing(docker.APIClient(server.host)) as client:
        left = client.containers(all=True, filters={"label": f"{OWNER}={owner}"})
    assert left == []


def alone(code: str, **more: Any) -> dict[str, Any]:
    config = {"code": code, **more.pop("config", {})}
    return {"id": "it", "node_type": "code.javascript", "config": config, "execution_mode": "sandbox", **more}


async def test_a_node_has_a_container_and_is_heard_from_there(docker_server: DockerServer, tmp_path: Path) -> None:
    code = """import fs from 'node:fs';
    export default ({n}) => {
        console.log('in a container');
        return {n: n + 1, there: fs.existsSync('/.dockerenv')};
    }"""
    events = MemorySink()
    async with opened(docker_server, tmp_path) as place:
        result = await place.result(place.order(alone(code), payload={"n": 1}), events)

    assert (result["n"], result["there"]) == (2, True)
    assert [(said.type, said.node_id) for said in events.happenings] == [
        (EventType.NODE_STARTED, "it"), (EventType.LOG, "it"), (EventType.NODE_COMPLETED, "it"),
    ]  # fmt: skip


async def test_its_memory_is_its_own_and_named_so(docker_server: DockerServer, tmp_path: Path) -> None:
    eat = "export default () => { const a = []; for (;;) a.push(Buffer.alloc(1000000, 1)); }"
    async with opened(docker_server, tmp_path) as place:
        error = await place.error(place.order(alone(eat, resources={"memory_mb": 200})))

    assert (error.kind, error.details) == (
        ErrorKind.MEMORY_EXCEEDED, {"limit": 200, "raise_with": "resources.memory_mb"},
    )  # fmt: skip


async def test_the_apps_own_word_on_where_it_may_connect_holds_there(
    docker_server: DockerServer, tmp_path: Path
) -> None:
    config = {"url": "http://127.0.0.1:1/"}
    ask = {"id": "it", "node_type": "http.request", "config": config, "execution_mode": "sandbox"}
    async with opened(docker_server, tmp_path, FLO_ALLOW_PRIVATE_NETWORK="true") as place:
        place.limits["acme"] = AppLimits(egress="none")
        error = await place.error(place.order(ask))

    assert error.kind is ErrorKind.FORBIDDEN


async def test_a_cancelled_run_leaves_no_container(docker_server: DockerServer, tmp_path: Path) -> None:
    begun = asyncio.Event()

    class Sink(MemorySink):
        def emit(self, happening: Happening) -> None:
            super().emit(happening)
            if happening.type is EventType.LOG:
                begun.set()

    async with opened(docker_server, tmp_path) as place:
        order = place.order(alone("export default async () => { console.log('now'); await new Promise(() => {}); }"))
        running = asyncio.create_task(place.run(order, Sink()))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_two_nodes_of_one_run_have_containers_at_the_same_time(
    docker_server: DockerServer, tmp_path: Path
) -> None:
    nodes = [{**alone("export default () => 1"), "id": name} for name in ("one", "two")]
    async with opened(docker_server, tmp_path) as place:
        outcome = await place.run(place.order(*nodes))

    assert isinstance(outcome, Succeeded), outcome


async def test_a_container_that_ends_itself_is_the_nodes_own_doing(docker_server: DockerServer, tmp_path: Path) -> None:
    code = "import {execSync} from 'node:child_process'; export default () => execSync('kill -9 -1').toString()"
    async with opened(docker_server, tmp_path) as place:
        outcome = await place.run(place.order(alone(code)))

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.KILLED
