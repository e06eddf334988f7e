"""Runs that are one node in a pod, over HTTP: shown with what they are a part of, and repeated as what they were."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.outcome import ChildNode, Parked, Wait, WaitKind
from schemas.waitpoint import child_waitpoint
from tests.integration.scheduler.conftest import Api

TWO = {
    "name": "two",
    "nodes": [
        {"id": "say", "node_type": "debug.log", "execution_mode": "pod", "config": {"message": "m"}},
        {"id": "more", "node_type": "debug.log", "config": {"message": "m"}},
    ],
}


@pytest.fixture
async def parent(shop: Api) -> str:
    """A run that waits for its node `say`."""
    assert (await shop.push(document=TWO)).status_code == 201
    run_id = await shop.start()
    child = ChildNode(given={"attempt": 1})
    wait = Wait(node_id="say", kind=WaitKind.CHILD, waitpoint=child_waitpoint(run_id, "say", 1), child=child)
    await shop.finish(run_id, Parked(waits=(wait,)))
    return run_id


async def shown(api: Api, run_id: str) -> Any:
    return (await api.send("GET", f"/api/v1/runs/{run_id}")).json()


async def test_caller_and_child_name_each_other_and_the_child_shows_its_only_node(shop: Api, parent: str) -> None:
    caller = await shown(shop, parent)
    child = await shown(shop, caller["waits"][0]["run_id"])

    assert caller["status"] == "waiting"
    assert (child["parent_run"], child["node"], child["flow"]) == (parent, "say", "greet")
    assert [node["id"] for node in child["nodes"]] == ["say"]
    assert "parent_run" not in caller


async def test_a_child_that_is_retried_is_that_node_once_more_and_not_its_flow(shop: Api, parent: str) -> None:
    child = (await shown(shop, parent))["waits"][0]["run_id"]
    await shop.finish(child)

    again = (await shop.send("POST", f"/api/v1/runs/{child}/retry")).json()["run_id"]
    claim = await shop.take(again)

    assert (claim.node, claim.mode, claim.payload) == ("say", "kubernetes_job", {"attempt": 1})
