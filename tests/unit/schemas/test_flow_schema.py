"""The JSON Schema for editors accepts what Flo accepts, and refuses what an editor can know to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from document_maker import code, flow, node, wire

from schemas.catalog import load_catalog
from schemas.flow_schema import flow_schema

SCHEMA = flow_schema(load_catalog().list())
EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.json"))


@pytest.fixture(scope="module")
def editor() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    jsonschema_rs.meta.validate(SCHEMA)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_are_valid(editor: jsonschema_rs.Draft202012Validator, file: Path) -> None:
    editor.validate(json.loads(file.read_text()))


@pytest.mark.parametrize("node_type", load_catalog().list(), ids=lambda node_type: node_type.type)
def test_every_node_types_example_is_valid(editor: jsonschema_rs.Draft202012Validator, node_type: Any) -> None:
    editor.validate(flow(node("a", node_type.type, config=json.loads(json.dumps(node_type.example)))))


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (flow(node("a", "debug.lgo")), ["nodes", 0, "node_type"]),
        (flow(code("a", memory_mb=1)), ["nodes", 0, "config", "memory_mb"]),
        (flow(code("a", memroy_mb=64)), ["nodes", 0, "config"]),
        (flow(node("a", trigger_rule="all")), ["nodes", 0, "trigger_rule"]),
        (flow(node("a", retry_policy={"retry_on": ["7xx"]})), ["nodes", 0, "retry_policy"]),
        (flow(node("a"), settings={"on_error": "Stop"}), ["settings", "on_error"]),
        (flow(node("a"), settings={"strategy": "random"}), ["settings", "strategy"]),
        (flow(node("a"), wires=({"from_node": "a"},)), ["connections", 0]),
    ],
)
def test_a_mistake_is_marked_in_its_place(
    editor: jsonschema_rs.Draft202012Validator, raw: Any, path: list[object]
) -> None:
    assert path in [list(mistake.instance_path)[: len(path)] for mistake in editor.iter_errors(raw)]


def test_a_mistake_inside_a_map_is_marked_too(editor: jsonschema_rs.Draft202012Validator) -> None:
    inner = {"nodes": [code("x", memory_mb=1)]}

    assert not editor.is_valid(flow(node("each", "flow.map", config={"flow": inner})))
    assert not editor.is_valid(flow(node("each", "flow.map", config={"node": {"node_type": "no.such"}})))


def test_a_document_may_name_its_schema(editor: jsonschema_rs.Draft202012Validator) -> None:
    raw = flow(code("a"), node("b"), wires=(wire("a.x", "b.message"),), settings={"max_execution_time_ms": None})

    editor.validate({"$schema": "./flow.schema.json", **raw})
