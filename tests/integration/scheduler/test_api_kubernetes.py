"""What executes as a Kubernetes Job says what it takes of a node; what does not is refused before it is accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatch.bell import LocalBell
from dispatch.queues.memory import MemoryQueue
from scheduler.app import create_app
from scheduler.spine import open_spine
from schemas.settings import load_settings
from tests.making import NO_OP

RESOURCES = {"limits": {"cpu": "1", "memory": "512Mi"}}
SIZED = {**NO_OP, "settings": {"resources": RESOURCES}}
FLOW = "/api/v1/apps/shop/flows/greet"
INVOKE = "/api/v1/apps/shop/events/go/invoke/async"


@pytest.fixture(params=["FLO_EXECUTOR", "EXECUTION_BACKEND"])
async def cluster_api(request: pytest.FixtureRequest, home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """An API whose flows execute as Jobs, one way or the other."""
    async with serving(home, **{request.param: "kubernetes_job"}) as client:
        yield client


@asynccontextmanager
async def serving(home: Path, **variables: str) -> AsyncIterator[httpx.AsyncClient]:
    key = "k" * 40
    settings = load_settings({"FLO_HOME": str(home), "FLO_API_KEY": key, **variables})
    async with open_spine(settings, queue=MemoryQueue(), bell=LocalBell()) as spine:
        app = create_app(settings, spine=spine)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app),
                base_url="http://flo",
                headers={"Authorization": f"Bearer {key}"},
            ) as client,
        ):
            yield client


async def with_event(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    assert (await client.put(FLOW, json=document)).is_success
    assert (await client.put("/api/v1/apps/shop/events/go", json={"kind": "invoke", "flow": "greet"})).is_success


async def test_a_flow_without_resources_is_refused_at_push_with_the_fix(cluster_api: httpx.AsyncClient) -> None:
    answer = await cluster_api.put(FLOW, json=NO_OP)

    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["path"] == "settings.resources"
    assert '"memory": "512Mi"' in problem["fix"]


async def test_it_is_told_together_with_all_other_mistakes(cluster_api: httpx.AsyncClient) -> None:
    answer = await cluster_api.put(FLOW, json={"name": "x", "nodes": [{"id": "a", "node_type": "no.such"}]})

    assert [problem["path"] for problem in answer.json()["errors"]] == ["nodes[0].node_type", "settings.resources"]


async def test_resources_that_make_no_sense_are_refused_at_push(cluster_api: httpx.AsyncClient) -> None:
    wrong = {**NO_OP, "settings": {"resources": {"limits": {"cpu": "1", "memory": "lots"}}}}

    answer = await cluster_api.put(FLOW, json=wrong)

    assert answer.status_code == 422
    assert "quantity" in answer.json()["errors"][0]["message"]


async def test_a_flow_with_resources_is_taken(cluster_api: httpx.AsyncClient) -> None:
    await with_event(cluster_api, SIZED)

    assert (await cluster_api.post(INVOKE, json={})).status_code == 202


async def test_a_flow_may_do_in_a_pod_what_its_workers_have_no_place_for(home: Path) -> None:
    shell = {"name": "x", "nodes": [{"id": "ls", "node_type": "shell.exec", "config": {"command": "ls"}}]}
    sized = {**shell, "settings": {"resources": RESOURCES}}
    async with serving(home, FLO_EXECUTOR="kubernetes_job", FLO_EXECUTION_MODE="SANDBOX_CODE_ONLY") as client:
        assert (await client.put(FLOW, json=sized)).status_code == 201


async def test_a_run_that_asks_for_a_job_needs_resources_of_its_flow_or_its_own(home: Path) -> None:
    async with serving(home) as client:
        await with_event(client, NO_OP)
        await client.put("/api/v1/apps/shop/limits", json={"modes": ["inline", "kubernetes_job"]})
        job = {"mode": "kubernetes_job"}

        without = await client.post(INVOKE, json=job)
        own = await client.post(INVOKE, json={**job, "backend_config": {"resources": RESOURCES}})
        elsewhere = await client.post(INVOKE, json={})
        await client.put(FLOW, json=SIZED)
        of_flow = await client.post(INVOKE, json=job)

    assert [answer.status_code for answer in (without, own, elsewhere, of_flow)] == [422, 202, 202, 202]
    assert "settings" in without.json()["errors"][0]["fix"]


async def test_a_run_may_ask_for_no_more_than_its_operator_allows(home: Path) -> None:
    async with serving(home, FLO_EXECUTOR="kubernetes_job") as client:
        await with_event(client, SIZED)
        wish = {"backend_config": {"service_account": "builder"}}

        refused = await client.post(INVOKE, json=wish)
        await client.put("/api/v1/apps/shop/limits", json={"kubernetes": {"service_accounts": ["builder"]}})
        granted = await client.post(INVOKE, json=wish)

    assert (refused.status_code, granted.status_code) == (403, 202)
    assert "kubernetes" in refused.json()["detail"]
