"""Nodes that run alone, at the door: the server's own bounds hold at push."""

from __future__ import annotations


async def test_a_node_that_asks_for_more_than_the_server_allows_is_refused_with_path_and_fix(api):
    node = {"id": "a", "node_type": "debug.log", "execution_mode": "sandbox", "resources": {"memory_mb": 100_000}}

    answer = await api.push(document={"name": "x", "nodes": [node]})

    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["path"] == "nodes[0].resources.memory_mb"
    assert "at most 2560 here" in error["message"]
    assert "FLO_SOLO_MEMORY_MB" in error["fix"]


async def test_the_node_types_tell_where_their_nodes_may_run(api):
    answer = await api.send("GET", "/api/v1/nodes")

    places = {one["type"]: one["execution_modes"] for one in answer.json()["items"]}
    assert places["http.request"] == ["inline", "sandbox", "pod"]
    assert places["wait.webhook"] == ["inline"]
