"""Editors fetch the schema of flow documents from the API."""

from __future__ import annotations

import jsonschema_rs

from tests.making import NO_OP


async def test_the_schema_is_served_without_a_key_and_accepts_a_flow(api):
    answer = await api.send("GET", "/api/v1/schema/flow.json", headers={"authorization": ""})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/schema+json"
    jsonschema_rs.Draft202012Validator(answer.json()).validate(NO_OP)
    assert not jsonschema_rs.Draft202012Validator(answer.json()).is_valid({**NO_OP, "nodes": 3})
