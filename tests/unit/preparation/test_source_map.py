"""From a built line back to the line that the user wrote."""

from __future__ import annotations

import json

import pytest

from schemas.outcome import ErrorKind, RunError
from workers.preparation.source_map import Place, SourceMap, translated

#: Built line 2, columns 0 and 8 are the user's line 3, columns 0 and 4; built line 3 is line 7 of a package.
MAP = json.dumps({"version": 3, "sources": ["flo:code", "node_modules/ms/index.js"], "mappings": ";AAEA,QAAI;ACIJ"})


def test_a_place_is_found_by_the_last_segment_before_it() -> None:
    source_map = SourceMap(MAP)

    assert source_map.place(2, 1) == Place(None, 3, 1)
    assert source_map.place(2, 8) == Place(None, 3, 1)
    assert source_map.place(2, 40) == Place(None, 3, 5)
    assert source_map.place(3, 1) == Place("ms/index.js", 7, 1)


@pytest.mark.parametrize(("line", "column"), [(0, 1), (1, 1), (4, 1), (99, 1)])
def test_what_is_not_of_the_users_making_has_no_place(line: int, column: int) -> None:
    assert SourceMap(MAP).place(line, column) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sources": [], "mappings": "?"}', '{"sources": 3, "mappings": ""}'])
def test_what_is_no_source_map_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        SourceMap(text)


def test_every_place_in_a_text_is_translated_and_nothing_else() -> None:
    text = "at f (greet.ts:2:9)\nat other.ts:2:9\nat greet.ts:99:1"

    assert SourceMap(MAP).translate(text, "greet.ts") == "at f (greet.ts:3:5)\nat other.ts:2:9\nat greet.ts:99:1"


def test_an_error_speaks_of_the_written_lines() -> None:
    stack = "Error: no\n    at f (greet.ts:2:9)"
    error = RunError(
        kind=ErrorKind.USER, message="greet.ts:2:9: Error: no", details={"line": 2, "column": 9, "stack": stack}
    )

    seen = translated(error, SourceMap(MAP), "greet.ts", own_first=True)

    assert seen.message == "greet.ts:3:5: Error: no"
    assert seen.details == {"line": 3, "column": 5, "stack": "Error: no\n    at f (greet.ts:3:5)"}


def test_an_error_in_a_package_is_placed_where_the_users_code_called_it() -> None:
    stack = "Error: no\n    at ms (greet.ts:3:1)\n    at f (greet.ts:2:9)"
    error = RunError(
        kind=ErrorKind.USER, message="greet.ts:3:1: Error: no", details={"line": 3, "column": 1, "stack": stack}
    )

    mine = translated(error, SourceMap(MAP), "greet.ts", own_first=True)
    theirs = translated(error, SourceMap(MAP), "greet.ts", own_first=False)

    assert mine.message == "greet.ts:3:5: Error: no"
    assert theirs.message == "ms/index.js:7:1: Error: no"
    assert mine.details is not None
    assert mine.details["stack"] == "Error: no\n    at ms (ms/index.js:7:1)\n    at f (greet.ts:3:5)"
