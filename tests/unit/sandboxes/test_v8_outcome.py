"""How a host's last word on a run becomes an outcome."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.json import dumps
from schemas.outcome import ErrorKind, RunError
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeReturned
from workers.sandboxes.node.outcome import outcome_of
from workers.sandboxes.v8.pool import HINTS

ORDER = CodeOrder(
    source="", inputs={}, app="shop", timeout=timedelta(seconds=1), memory_mb=64, max_output_bytes=1000, filename="a.js"
)


def error(**answer: Any) -> RunError:
    outcome = outcome_of(ORDER, answer, HINTS)
    assert isinstance(outcome, CodeFailed)
    return outcome.error


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=20))
def test_every_json_value_is_read_back_as_it_was(value: Any) -> None:
    assert outcome_of(ORDER, {"value": dumps(value)}, HINTS) == CodeReturned(value)


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    assert outcome_of(ORDER, {"value": r'["\ud83c", "\ud83c\udf88"]'}, HINTS) == CodeReturned(["\ufffd", "🎈"])


def test_text_that_is_not_json_is_the_user_s_error() -> None:
    assert error(value="{").kind == ErrorKind.USER


def test_only_the_user_s_own_frames_are_kept_of_a_stack() -> None:
    theirs, ours = (
        "    at f (a.js:3:5)\n    at a.js:1:1",
        "    at Array.map (<anonymous>)\n    at run (flo:bootstrap:9:9)",
    )
    stack = f"Error: no\n{ours}\n{theirs}"
    found = error(kind="user_error", message="Error: no", stack=stack)
    assert found.message == "a.js:3:5: Error: no"
    assert found.details == {"line": 3, "column": 5, "stack": "Error: no\n    at f (a.js:3:5)\n    at a.js:1:1"}


def test_an_error_without_frames_of_the_user_has_no_place() -> None:
    assert error(kind="user_error", message="Error: no", stack="Error: no\n    at f (b.js:3:5)").details is None


def test_a_stack_is_cut_to_twenty_lines() -> None:
    stack = "\n".join(["Error: no", *[f"    at f (a.js:{line}:1)" for line in range(1, 100)]])
    details = error(kind="user_error", message="Error: no", stack=stack).details
    assert details is not None
    assert str(details["stack"]).count("\n") == 20


def test_a_filename_is_not_a_pattern() -> None:
    assert error(kind="user_error", message="Error: no", stack="    at f (axjs:3:5)").details is None


@pytest.mark.parametrize("name", ["fetch", "Buffer", "process", "URL"])
def test_a_global_that_is_not_there_is_explained(name: str) -> None:
    message = error(kind="user_error", message=f"ReferenceError: {name} is not defined").message
    assert message.startswith(f"ReferenceError: {name} is not defined (")


def test_an_array_buffer_that_does_not_fit_is_memory_exceeded() -> None:
    assert error(kind="user_error", message="RangeError: Array buffer allocation failed").kind == (
        ErrorKind.MEMORY_EXCEEDED
    )


def test_an_answer_that_nobody_knows_is_our_own_fault() -> None:
    assert error(kind="surprise").kind == ErrorKind.INTERNAL


@pytest.mark.parametrize("answer", [{}, {"kind": "syntax_error"}, {"value": 5}, {"kind": "user_error", "line": 1}])
def test_an_answer_with_parts_missing_is_our_own_fault(answer: dict[str, Any]) -> None:
    assert error(**answer).kind == ErrorKind.INTERNAL
