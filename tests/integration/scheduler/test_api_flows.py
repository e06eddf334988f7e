"""Pushing, reading and retiring flows."""

from __future__ import annotations

from tests.making import NO_OP

OTHER = {"name": "other", "nodes": [{"id": "say", "node_type": "debug.log", "config": {"message": "bye"}}]}


async def test_a_flow_is_pushed_as_version_one(api):
    answer = await api.push()

    assert answer.status_code == 201
    assert answer.json()["version"] == 1


async def test_the_same_content_pushed_again_makes_no_version(api):
    await api.push()

    answer = await api.push()

    assert (answer.status_code, answer.json()["version"], answer.json()["created"]) == (200, 1, False)


async def test_other_content_makes_the_next_version_and_the_old_one_stays(api):
    await api.push()
    await api.push(document=OTHER)

    newest = await api.send("GET", "/api/v1/apps/shop/flows/greet")
    first = await api.send("GET", "/api/v1/apps/shop/flows/greet?version=1")

    assert (newest.json()["version"], newest.json()["document"]["name"]) == (2, "other")
    assert (first.json()["version"], first.json()["document"]["name"]) == (1, NO_OP["name"])


async def test_every_mistake_of_a_document_is_reported_and_nothing_is_kept(api):
    wrong = {
        "name": "x",
        "nodes": [{"id": "a", "node_type": "debug.lo"}, {"id": "a", "node_type": "debug.log"}],
        "connections": [{"from_node": "a", "from_port": "x", "to_node": "b", "to_port": "y"}],
    }

    answer = await api.push(document=wrong)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"nodes[0].node_type", "nodes[1].id", "connections[0].to_node"} <= {
        error["path"] for error in answer.json()["errors"]
    }
    assert (await api.send("GET", "/api/v1/apps/shop/flows")).json()["items"] == []


async def test_a_flow_that_goes_round_in_a_circle_is_refused(api):
    ring = {
        "name": "x",
        "nodes": [{"id": "a", "node_type": "debug.log"}, {"id": "b", "node_type": "debug.log"}],
        "connections": [
            {"from_node": "a", "from_port": "message", "to_node": "b", "to_port": "message"},
            {"from_node": "b", "from_port": "message", "to_node": "a", "to_port": "message"},
        ],
    }

    answer = await api.push(document=ring)

    assert answer.status_code == 422
    assert "a → b → a" in answer.text


async def test_checking_a_flow_keeps_nothing(api):
    answer = await api.send("POST", "/api/v1/apps/shop/flows/greet/validate", json=NO_OP)

    assert answer.json()["valid"] is True
    assert (await api.send("GET", "/api/v1/apps/shop/flows/greet")).status_code == 404


async def test_a_retired_flow_starts_nothing_and_comes_back_when_pushed(shop):
    retired = await shop.send("DELETE", "/api/v1/apps/shop/flows/greet")
    refused = await shop.send("POST", "/api/v1/apps/shop/events/go/invoke/async")
    again = await shop.push()

    assert (retired.status_code, refused.status_code, again.status_code) == (204, 410, 200)
    assert await shop.start()


async def test_a_flow_that_is_not_there_is_named_with_its_likeness(shop):
    answer = await shop.send("GET", "/api/v1/apps/shop/flows/great")

    assert answer.status_code == 404
    assert 'did you mean "greet"?' in answer.json()["detail"]


async def test_flows_are_listed_page_by_page(api):
    for name in ("a", "b", "c"):
        await api.push(name)

    first = (await api.send("GET", "/api/v1/apps/shop/flows?limit=2")).json()
    second = (await api.send("GET", f"/api/v1/apps/shop/flows?limit=2&cursor={first['next_cursor']}")).json()

    assert [flow["flow"] for flow in first["items"]] == ["a", "b"]
    assert [flow["flow"] for flow in second["items"]] == ["c"]
    assert second["next_cursor"] is None


async def test_node_types_are_listed(api):
    answer = await api.send("GET", "/api/v1/nodes")

    assert "code.javascript" in [node["type"] for node in answer.json()["items"]]
