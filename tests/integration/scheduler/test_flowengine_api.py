"""FlowEngine's API, as its clients use it; a hand plays the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler.app import create_app
from scheduler.spine import Spine
from schemas.json import JSONObject
from schemas.outcome import ErrorKind, Failed, RunError
from schemas.run import EventType, Happening
from schemas.settings import Compatibility, Settings
from tests.integration.scheduler.conftest import Api

EXAMPLES = Path(__file__).parents[2] / "data" / "flowengine"
STREAMING = json.loads((EXAMPLES / "streaming_demo.json").read_text())
ID = STREAMING["id"]

Open = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


async def create(api: Api, document: Any = STREAMING) -> httpx.Response:
    return await api.send("POST", "/api/workflows", json=document)


async def execute(api: Api, workflow: str = ID, **body: Any) -> tuple[asyncio.Task[httpx.Response], str]:
    """Begin to execute, and wait until the run is accepted: gives the answer to come, and the run's id."""
    asked = asyncio.create_task(api.send("POST", f"/api/workflows/{workflow}/execute", json=body))
    return asked, (await asyncio.wait_for(api.queue.take("flow"), 30)).run_id


@pytest.fixture
async def opened(settings: Settings, spine: Spine) -> AsyncIterator[Open]:
    """An API without keys, as seen from some address."""

    @asynccontextmanager
    async def open_api(base: str = "http://127.0.0.1", client: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
        mine = settings.model_copy(update={"compat_flowengine": Compatibility.OPEN})
        object.__setattr__(spine, "settings", mine)
        app = create_app(mine, spine=spine)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(client, 1))
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=base) as found:
            yield found

    yield open_api


async def test_health_is_flowengines_and_needs_no_key(api: Api) -> None:
    answer = await api.send("GET", "/health", headers={"Authorization": ""})

    assert answer.status_code == 200
    assert answer.json() | {"version": ""} == {"status": "healthy", "version": "", "service": "flowengine"}


async def test_a_workflow_is_created_listed_and_read_as_it_was_written(api: Api) -> None:
    created = await create(api)
    listed = await api.send("GET", "/api/workflows")
    found = await api.send("GET", f"/api/workflows/{ID}")

    assert (created.status_code, created.json()) == (201, {"id": ID, "message": "Workflow created successfully"})
    assert listed.json() == [
        {
            "id": ID, "name": STREAMING["name"], "description": STREAMING["description"], "nodes": 3, "connections": 2,
        }
    ]  # fmt: skip
    assert [node["config"] for node in found.json()["nodes"]] == [node["config"] for node in STREAMING["nodes"]]
    assert {key: found.json()[key] for key in ("connections", "triggers")} == {
        key: STREAMING[key] for key in ("connections", "triggers")
    }


async def test_what_was_read_is_the_same_workflow_when_it_is_created_again(api: Api) -> None:
    await create(api)
    found = (await api.send("GET", f"/api/workflows/{ID}")).json()

    await create(api, found)

    assert (await api.send("GET", f"/api/v1/apps/default/flows/{ID}")).json()["latest_version"] == 1


async def test_execute_answers_when_the_run_is_over_with_what_completed(api: Api) -> None:
    await create(api)
    asked, run = await execute(api, inputs={"typed": {"type": "Number", "value": 2}, "plain": {"a": 1}})
    done: JSONObject = {"outputs": {}, "attempt": 1}
    happenings = [Happening(EventType.NODE_COMPLETED, done, node["id"]) for node in STREAMING["nodes"]]
    await api.finish(run, happenings=happenings)

    answer = await asked

    assert answer.status_code == 200
    assert answer.json().keys() == {"execution_id", "completed_nodes", "total_nodes"}
    assert (answer.json()["completed_nodes"], answer.json()["total_nodes"]) == (3, 3)
    assert (await api.send("GET", f"/api/v1/runs/{run}")).json()["payload"] == {"typed": 2, "plain": {"a": 1}}


async def test_an_execution_that_fails_says_which_node_and_why(api: Api) -> None:
    await create(api)
    asked, run = await execute(api)
    await api.finish(run, Failed(error=RunError(kind=ErrorKind.USER, message="no luck", node_id="a")))

    answer = await asked

    assert (answer.status_code, answer.json()) == (500, {"error": "Node a failed: no luck"})


async def test_a_deleted_workflow_is_neither_found_listed_nor_executed(api: Api) -> None:
    await create(api)

    deleted = await api.send("DELETE", f"/api/workflows/{ID}")

    assert (deleted.status_code, deleted.json()) == (200, {"message": "Workflow deleted successfully"})
    assert (await api.send("GET", "/api/workflows")).json() == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/execute")):
        answer = await api.send(method, f"/api/workflows/{ID}{path}")
        assert (answer.status_code, answer.json()) == (404, {"error": f"Workflow {ID} not found"})


async def test_a_wrong_document_is_400_with_every_mistake_in_one_text(api: Api) -> None:
    answer = await create(api, {**STREAMING, "nodes": [{"id": "a", "node_type": "no.such", "config": {}}]})

    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert "no.such" in answer.json()["error"]


async def test_node_types_are_a_plain_list(api: Api) -> None:
    listed = (await api.send("GET", "/api/nodes")).json()

    assert {"shell.exec", "http.request", "debug.log"} <= {node["type"] for node in listed}
    assert {frozenset(node) for node in listed} == {frozenset({"type", "description", "category"})}


async def test_a_flow_that_was_pushed_to_flo_is_a_workflow_too(api: Api) -> None:
    await api.push("greet", app="default")
    asked, run = await execute(api, "greet")
    await api.finish(run)

    assert (await asked).status_code == 200


async def test_a_key_of_an_app_sees_that_apps_workflows(api: Api) -> None:
    await create(api)
    await api.push("greet")
    headers = {"Authorization": f"Bearer {await api.key('read')}"}

    listed = await api.send("GET", "/api/workflows", headers=headers)
    refused = await api.send("POST", "/api/workflows", json=STREAMING, headers=headers)

    assert [workflow["id"] for workflow in listed.json()] == ["greet"]
    assert (refused.status_code, list(refused.json())) == (403, ["error"])


async def test_without_a_key_nothing_is_told_unless_the_operator_opened_it(api: Api) -> None:
    answer = await api.send("GET", "/api/workflows", headers={"Authorization": ""})

    assert (answer.status_code, list(answer.json())) == (401, ["error"])
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_switched_off_there_is_no_such_api(settings: Settings, spine: Spine) -> None:
    app = create_app(settings.model_copy(update={"compat_flowengine": Compatibility.OFF}), spine=spine)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://flo") as client:
        answers = [(await client.get(path)).status_code for path in ("/health", "/api/workflows", "/api/nodes")]

    assert answers == [404, 404, 404]


async def test_opened_it_serves_this_machine_without_a_key(opened: Open) -> None:
    async with opened() as client:
        created = await client.post("/api/workflows", json=STREAMING)
        listed = await client.get("/api/workflows")

    assert (created.status_code, listed.status_code) == (201, 200)


@pytest.mark.parametrize(
    ("where", "headers"),
    [
        ({"client": "10.0.0.7"}, {}),
        ({"base": "http://192.168.0.4"}, {}),
        ({"base": "http://rebound.example"}, {}),
        ({}, {"Host": "flo.example.com"}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"X-Forwarded-For": "203.0.113.9"}),
        ({}, {"Authorization": "Bearer wrong"}),
    ],
)
async def test_opened_it_still_refuses_others_and_web_pages(
    opened: Open, where: dict[str, str], headers: dict[str, str]
) -> None:
    async with opened(**where) as client:
        answer = await client.post("/api/workflows", json=STREAMING, headers=headers)

    assert answer.status_code in (401, 403)
    assert list(answer.json()) == ["error"]
