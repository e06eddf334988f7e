"""Run events in FlowEngine's words, and its values and ids."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.compat.flowengine.values import execution_id, typed
from scheduler.compat.flowengine.words import Words
from scheduler.news import Told
from schemas.ids import new_id
from schemas.json import JSONObject
from schemas.run import EventType, Happening, RunEvent
from schemas.typed import plain_config

RUN = new_id("run")
BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def told(type_: EventType, data: JSONObject, node: str | None = None, *, after_ms: int = 0) -> Told:
    happening = Happening(type_, data, node, BEGUN + timedelta(milliseconds=after_ms))
    return Told("default", "the-workflow", RunEvent(RUN, 1, happening))


def worded(words: Words, *args: Any, **rest: Any) -> Any:
    text = words.write(told(*args, **rest))
    return None if text is None else json.loads(text)


def test_a_run_begins_and_ends_as_a_workflow() -> None:
    words = Words()

    begun = worded(words, EventType.RUN_STARTED, {"attempt": 1})
    ended = worded(words, EventType.RUN_COMPLETED, {"status": "succeeded"}, after_ms=1500)

    assert begun == {
        "type": "WorkflowStarted", "execution_id": execution_id(RUN), "workflow_id": "the-workflow",
        "timestamp": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    assert (ended["type"], ended["success"], ended["duration_ms"]) == ("WorkflowCompleted", True, 1500)


@pytest.mark.parametrize(
    ("node_type", "level", "said"),
    [
        ("shell.exec", "info", {"event_type": "StdoutLine", "line": "hi"}),
        ("shell.exec", "warning", {"event_type": "StderrLine", "line": "hi"}),
        ("debug.log", "info", {"event_type": "Info", "message": "hi"}),
        ("debug.log", "error", {"event_type": "Warning", "message": "hi"}),
    ],
)
def test_a_line_is_worded_by_the_node_that_said_it(node_type: str, level: str, said: Any) -> None:
    words = Words()
    worded(words, EventType.NODE_STARTED, {"node_type": node_type, "attempt": 1}, "a")

    line = worded(words, EventType.LOG, {"level": level, "message": "hi"}, "a")

    assert (line["type"], line["node_id"], line["event"]) == ("NodeEvent", "a", said)


def test_outputs_have_their_types() -> None:
    data: JSONObject = {"outputs": {"n": 1, "t": "x", "b": {"deep": [1]}}, "duration_ms": 12.6}

    done = worded(Words(), EventType.NODE_COMPLETED, data, "a")

    assert done["duration_ms"] == 13
    assert done["outputs"] == {
        "n": {"type": "Number", "value": 1}, "t": {"type": "String", "value": "x"},
        "b": {"type": "Json", "value": {"deep": [1]}},
    }  # fmt: skip


@pytest.mark.parametrize("type_", [EventType.RUN_QUEUED, EventType.RUN_WAITING, EventType.RUN_RESUMED])
def test_what_flowengine_has_no_word_for_is_left_out(type_: EventType) -> None:
    assert Words().write(told(type_, {})) is None


@given(_json)
def test_a_typed_value_read_again_is_the_same(value: Any) -> None:
    problems: list[Any] = []

    assert plain_config({"it": typed(value)}, path="", problems=problems) == {"it": value}
    assert not problems


def test_each_run_has_an_execution_id_of_its_own() -> None:
    ids = {execution_id(new_id("run")) for _ in range(100)}

    assert len(ids) == 100
    assert all(str(uuid.UUID(one)) == one for one in ids)
