from __future__ import annotations

import io

import pytest

from flo.cli.inputs import parse, read_payload
from flo.errors import Mistake


def test_json_text_is_read() -> None:
    assert read_payload('{"name": "Ada"}') == {"name": "Ada"}


def test_a_dash_after_the_at_sign_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("[1]"))

    assert read_payload("@-") == [1]


def test_a_mistake_is_shown_with_a_mark_under_its_column() -> None:
    with pytest.raises(Mistake) as mistake:
        parse('{\n  "a": oops\n}', what="flow.json")

    first, line, mark = str(mistake.value).splitlines()
    assert first == "flow.json is not JSON: Expecting value at line 2, column 8"
    assert line[mark.index("^") :].startswith("oops")


def test_a_mistake_far_into_a_long_line_is_still_shown() -> None:
    with pytest.raises(Mistake) as mistake:
        parse("[" + "1," * 5000 + "oops]", what="flow.json")

    _, line, mark = str(mistake.value).splitlines()
    assert line[mark.index("^") :].startswith("oops")
    assert len(line) < 100


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(Mistake, match="nested too deeply"):
        parse("[" * 100_000, what="flow.json")
