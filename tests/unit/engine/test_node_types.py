"""What each built-in node gives for what it gets."""

from __future__ import annotations

from typing import Any

import pytest
from document_maker import code, flow, node, wire
from scripted_nodes import ScriptedCode, run

from schemas.catalog import load_catalog
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, Failed, RunError, Succeeded
from schemas.run import EventType
from workers.engine.registry import BUILT_IN
from workers.engine.sink import MemorySink
from workers.nodes.debug import SHOWN
from workers.sandboxes.base import CodeFailed


async def result(raw: dict[str, Any], payload: JSONValue = None) -> JSONValue:
    outcome = await run(raw, payload)
    assert isinstance(outcome, Succeeded)
    return outcome.result


def test_every_node_type_of_the_catalog_has_its_work() -> None:
    assert set(BUILT_IN) == set(load_catalog())


@pytest.mark.parametrize(
    ("message", "line"), [("text", "text"), ({"a": [1, None]}, '{"a":[1,null]}'), (3, "3"), (None, "null")]
)
async def test_debug_log_shows_a_string_as_it_is_and_anything_else_as_json(message: JSONValue, line: str) -> None:
    events = MemorySink()

    outcome = await run(flow(node("say", config={"level": "warning"})), {"message": message}, events=events)

    assert outcome == Succeeded(result={"message": message})
    assert events.happenings[1].type is EventType.LOG
    assert events.happenings[1].data == {"level": "warning", "message": line}


async def test_debug_log_without_a_message_says_so() -> None:
    events = MemorySink()

    assert await run(flow(node("say")), events=events) == Succeeded(result={})
    assert events.happenings[1].data == {"level": "info", "message": "(no message)"}


async def test_debug_log_shows_only_the_beginning_of_a_long_message_and_passes_on_the_whole() -> None:
    events, message = MemorySink(), "x" * (SHOWN + 7)

    assert await run(flow(node("say")), {"message": message}, events=events) == Succeeded(result={"message": message})
    assert events.happenings[1].data["message"] == "x" * SHOWN + "… (7 more)"


async def test_json_parse_reads_text() -> None:
    assert await result(flow(node("a", "transform.json_parse")), {"json": '{"id": 1}'}) == {"parsed": {"id": 1}}


async def test_json_parse_names_the_place_of_a_mistake() -> None:
    outcome = await run(flow(node("a", "transform.json_parse")), {"json": '{"id":\n 1,}'})

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.USER
    assert "is not JSON" in outcome.error.message
    assert "at line 2, column" in outcome.error.message


async def test_json_stringify_indents_unless_told_otherwise() -> None:
    pretty = await result(flow(node("a", "transform.json_stringify")), {"value": {"id": 1}})
    compact = await result(flow(node("a", "transform.json_stringify", config={"pretty": False})), {"value": {"id": 1}})

    assert pretty == {"json": '{\n  "id": 1\n}'}
    assert compact == {"json": '{"id":1}'}


async def test_json_stringify_keeps_big_numbers() -> None:
    assert await result(flow(node("a", "transform.json_stringify")), {"value": 2**70}) == {"json": str(2**70)}


@pytest.mark.parametrize(
    ("config", "payload", "output"),
    [
        ({"map": "n + 1"}, {"n": 1}, 2),
        ({"map": {"name": "user.first", "fixed": 3, "both": ["n", {"m": "n"}]}}, {"user": {"first": "bo"}, "n": 1},
         {"name": "bo", "fixed": 3, "both": [1, {"m": 1}]}),
        ({"map": "item * factor"}, {"items": [1, 2], "factor": 3}, [3, 6]),
        ({"map": {"at": "index", "is": "item"}, "where": "item != 2"}, {"items": [1, 2, 3]},
         [{"at": 0, "is": 1}, {"at": 2, "is": 3}]),
    ],
)  # fmt: skip
async def test_map_puts_the_value_of_each_expression_in_its_place(config: Any, payload: JSONValue, output: Any) -> None:
    given = await result(flow(node("a", "transform.map", config=config)), payload)

    assert isinstance(given, dict)
    assert given["output"] == output


async def test_each_key_of_what_map_makes_is_a_port() -> None:
    raw = flow(
        node("a", "transform.map", config={"map": {"text": "'hi'"}}), node("b"), wires=(wire("a.text", "b.message"),)
    )

    assert await result(raw) == {"message": "hi"}


async def test_what_map_makes_has_a_limit_however_little_memory_it_takes() -> None:
    config = {"map": "[" + "payload, " * 100 + "1]", "max_output_bytes": 1000}

    outcome = await run(flow(node("a", "transform.map", config=config)), "x" * 50)

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.OUTPUT_EXCEEDED


async def test_time_delay_passes_its_data_on() -> None:
    assert await result(flow(node("a", "time.delay", config={"delay_ms": 0})), {"data": [1]}) == {"data": [1]}


@pytest.mark.parametrize(
    ("config", "payload", "answer"),
    [
        ({}, {"value": 1, "x": 2}, 1),
        ({"value": "fixed"}, {"value": 1}, "fixed"),
        ({}, {"x": 2}, {"x": 2}),
        ({}, "plain", "plain"),
    ],
)
async def test_respond_answers_with_its_value_or_with_the_payload(
    config: dict[str, JSONValue], payload: JSONValue, answer: JSONValue
) -> None:
    assert await result(flow(node("a", "respond", config=config)), payload) == answer


async def test_respond_without_a_value_answers_with_an_object_of_its_other_ports() -> None:
    raw = flow(code("a"), node("b", "respond"), wires=(wire("a.x", "b.one"), wire("a.y", "b.two")))

    assert await result(raw, {"x": 1, "y": 2}) == {"one": 1, "two": 2}


async def test_respond_keeps_status_and_headers_beside_the_answer() -> None:
    events = MemorySink()
    raw = flow(node("a", "respond", config={"value": 1, "status": 201, "headers": {"x-a": "b"}}))

    await run(raw, events=events)

    assert events.happenings[-1].data["outputs"] == {"value": 1, "status": 201, "headers": {"x-a": "b"}}


async def test_the_error_of_code_names_its_node() -> None:
    error = RunError(kind=ErrorKind.SYNTAX, message="Unexpected token at line 1, column 3")

    outcome = await run(flow(code("a")), code=ScriptedCode(lambda order: CodeFailed(error)))

    assert outcome == Failed(error=error.model_copy(update={"node_id": "a"}))


async def test_code_that_names_no_limits_gets_the_defaults() -> None:
    sandbox = ScriptedCode()

    await run(flow(code("a")), code=sandbox)

    assert (sandbox.orders[0].timeout.total_seconds(), sandbox.orders[0].memory_mb) == (30, 128)
