"""Both forms of a document mean the same, and the canonical form stays what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from document_maker import code, flow, mistakes_in, node, read, wire
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalog import load_catalog
from schemas.flow import canonical_json, content_hash

FLOWENGINE = Path(__file__).parents[2] / "data" / "flowengine"

TEXT = "export default () => 1"


def typed(value: Any) -> dict[str, Any]:
    """Write a value as FlowEngine does."""
    match value:
        case None:
            return {"type": "Null", "value": None}
        case bool():
            return {"type": "Bool", "value": value}
        case int() | float():
            return {"type": "Number", "value": value}
        case str():
            return {"type": "String", "value": value}
        case list():
            return {"type": "Array", "value": [typed(item) for item in value]}
    return {"type": "Object", "value": {key: typed(item) for key, item in value.items()}}


def test_the_typed_form_means_the_same_as_the_plain_one() -> None:
    config = {"url": "http://x", "method": "POST", "headers": {"a": "b"}, "body": [1, 2.5, True, None, {"x": "y"}]}
    plain = flow(node("a", "http.request", config=config))
    in_types = flow(node("a", "http.request", config={key: typed(value) for key, value in config.items()}), triggers=[])

    assert read(in_types)[0] == read(plain)[0]


def test_a_document_without_triggers_is_typed_when_all_its_values_look_so() -> None:
    document, _ = read(flow(node("a", "code.javascript", config={"code": typed(TEXT), "memory_mb": typed(64.0)})))

    assert document.nodes[0].config == {"code": TEXT, "memory_mb": 64}


def test_a_plain_value_that_looks_typed_stays_what_it_is() -> None:
    config = {"url": "http://x", "method": "POST", "body": {"type": "String", "value": "kept"}}

    document, _ = read(flow(node("a", "http.request", config=config)))

    assert document.nodes[0].config == config


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"type": "Strin", "value": "x"}, "code.type", 'unknown value type "Strin"; allowed: Null, Bool'),
        ({"type": "String", "value": 3}, "code.value", "type String needs a string; given 3"),
        ({"type": "Array", "value": [3]}, "code.value[0]", "given 3, but here every value is typed"),
    ],
)
def test_a_value_that_contradicts_its_type_is_named(value: object, path: str, message: str) -> None:
    found = mistakes_in(flow(node("a", "code.javascript", config={"code": value}), triggers=[]))

    assert message in found[f"nodes[0].config.{path}"]


def test_flowengines_own_document_is_accepted_with_notes() -> None:
    raw = json.loads((FLOWENGINE / "data_pipeline.json").read_text())

    document, notes = read(raw)

    assert [item.node_type for item in document.nodes] == [
        "http.request", "transform.json_parse", "time.delay", "transform.json_stringify", "debug.log",
    ]  # fmt: skip
    assert "retry_on_timeout missing: taken as false" in [note.message for note in notes]
    assert document.nodes[0].retry_policy is not None
    assert document.nodes[0].retry_policy.retry_on_timeout is False


def test_a_trigger_is_kept_and_the_user_told_that_it_does_not_fire() -> None:
    trigger = {"id": "t", "trigger_type": {"type": "Cron", "expression": "* * * * *"}, "enabled": True}

    document, notes = read(flow(node("a"), triggers=[trigger]))

    assert document.triggers[0].trigger_type.expression == "* * * * *"
    assert "a Cron trigger is kept but does not start the flow" in [note.message for note in notes]


@pytest.mark.parametrize("attempts", [1, 100])
def test_retry_workflow_is_accepted(attempts: int) -> None:
    settings = {"on_error": {"RetryWorkflow": {"max_attempts": attempts}}}

    document, _ = read(flow(node("a"), settings=settings))

    assert document.model_dump(mode="json")["settings"]["on_error"] == settings["on_error"]


def test_missing_settings_take_their_defaults() -> None:
    document, _ = read({"name": "x", "nodes": [node("a")]})

    assert document.settings.max_parallel_nodes == 10
    assert document.settings.max_execution_time_ms == 3_600_000
    assert document.settings.on_error == "StopWorkflow"


def test_the_hash_does_not_depend_on_the_order_of_keys_nor_on_defaults_spelled_out() -> None:
    one = flow(code("a", memory_mb=64, timeout_ms=5), settings={"max_parallel_nodes": 10})
    other = {
        "connections": [],
        "nodes": [dict(reversed(code("a", timeout_ms=5, memory_mb=64).items()))],
        "name": "flow",
    }

    assert content_hash(read(one)[0]) == content_hash(read(other)[0])
    assert canonical_json(read(one)[0]) == canonical_json(read(other)[0])


def test_the_hash_depends_on_the_content() -> None:
    assert content_hash(read(flow(code("a", memory_mb=64)))[0]) != content_hash(read(flow(code("a", memory_mb=65)))[0])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "value", "k"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(message=json_values, retry=st.booleans(), in_types=st.booleans())
def test_a_document_dumped_and_read_again_is_the_same(message: Any, retry: bool, in_types: bool) -> None:
    policies: dict[str, Any] = {"retry_policy": {"max_attempts": 2, "jitter": 0.5}} if retry else {}
    triggers: dict[str, Any] = {"triggers": []} if in_types else {}
    config = {"message": typed(message) if in_types else {"plain": message}}
    raw = flow(node("a", config=config, **policies), node("b"), wires=(wire("a.message", "b.message"),), **triggers)

    document, _ = read(raw)

    assert read(document.model_dump())[0] == document
    assert read(document.model_dump(mode="json"))[0] == document
    assert read(json.loads(canonical_json(document)))[0] == document


@pytest.mark.parametrize("node_type", load_catalog().list(), ids=lambda node_type: node_type.type)
def test_every_node_type_shows_an_example_that_its_config_accepts(node_type: Any) -> None:
    assert node_type.config.model_validate(node_type.example)
    assert set(node_type.as_json()) >= {
        "type",
        "description",
        "category",
        "inputs",
        "outputs",
        "config_schema",
        "example",
    }
