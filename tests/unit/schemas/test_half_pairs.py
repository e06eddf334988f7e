"""Half of a surrogate pair in a user's own JSON is a mistake with its place and the fix."""

from __future__ import annotations

import orjson
import pytest
from document_maker import code, flow, mistakes_in, node

from schemas.errors import Invalid
from schemas.half_pairs import half_pairs, read_own
from schemas.json import JSONValue


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("\ud800", ["$"]),
        ({"a": ["x", "y\udc00"]}, ["a[1]"]),
        ({"a": {"b\ud800": 1}}, ["a.b\\ud800"]),
        ([{"a": "\ud800"}, {"a": "\ud800"}], ["[0].a", "[1].a"]),
        ({"a": "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "b": 10**30, "c": None}, []),
    ],
)
def test_each_is_found_at_its_place(value: JSONValue, paths: list[str]) -> None:
    assert [problem.path for problem in half_pairs(value)] == paths


def test_the_half_is_shown_with_the_fix() -> None:
    (problem,) = half_pairs({"text": "Hi \ud83d"})

    assert problem.message == r"has half of a surrogate pair (\ud83d, character 4), which is no text"
    assert "write both halves" in problem.fix


@pytest.mark.parametrize(
    "document",
    [
        flow(code("a", code="export default () => '\ud800'")),
        {**flow(code("a")), "name": "\ud800"},
        flow(node("\udfff")),
        flow(node("a", "debug.\ud800")),
        flow({"id": "a", "node_type": "debug.log", "config": {"\ud800": 1}}),
        flow(node("a"), {"\ud800": []}),
        flow(node("a"), description="\ud800"),
    ],
)
def test_no_document_with_one_is_accepted(document: JSONValue) -> None:
    found = mistakes_in(document)

    assert found
    assert all("half of a surrogate pair" in message for message in found.values())
    assert "".join([*found, *found.values()]).encode()


def test_a_document_that_is_only_text_is_refused_in_text() -> None:
    assert mistakes_in("\ud800")["$"].encode()


def test_other_mistakes_keep_their_line_and_column() -> None:
    with pytest.raises(orjson.JSONDecodeError) as refused:
        read_own(b'{"a": "\\ud800",\n "b": }', what="body")

    assert refused.value.lineno in (1, 2)


def test_all_of_them_are_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        read_own(b'{"a": "\\ud800", "b": ["\\udc00"]}', what="body")

    assert [problem.path for problem in refused.value.problems] == ["a", "b[0]"]
