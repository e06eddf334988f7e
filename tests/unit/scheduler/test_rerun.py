"""What a run that begins at a chosen node takes over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scheduler.rerun import taken_over
from schemas.catalog import load_catalog
from schemas.errors import Invalid
from schemas.flow import FlowDocument
from schemas.run import EventType, Happening
from schemas.validation import read_document

#: a feeds b, b feeds c; d stands alone.
_RAW: dict[str, Any] = {
    "name": "abc",
    "nodes": [{"id": name, "node_type": "debug.log", "config": {}} for name in "abcd"],
    "connections": [
        {"from_node": start, "from_port": "message", "to_node": end, "to_port": "message"}
        for start, end in ("ab", "bc")
    ],
}


@pytest.fixture
def document() -> FlowDocument:
    return read_document(_RAW, catalog=load_catalog(), max_inline_http=timedelta(minutes=5))[0]


def completed(node_id: str, **data: Any) -> Happening:
    return Happening(EventType.NODE_COMPLETED, {"outputs": {"message": node_id}, **data}, node_id)


def names(kept: tuple[Happening, ...]) -> list[str | None]:
    return [said.node_id for said in kept]


@pytest.mark.parametrize(
    ("from_node", "kept"), [("a", ["d"]), ("b", ["a", "d"]), ("c", ["a", "b", "d"]), ("d", ["a", "b", "c"])]
)
def test_what_the_chosen_node_feeds_is_done_again_and_the_rest_is_kept(
    document: FlowDocument, from_node: str, kept: list[str]
) -> None:
    happenings = [completed(name) for name in "abcd"]

    assert names(taken_over(document, happenings, from_node=from_node)) == kept


def test_only_what_was_completed_can_be_kept(document: FlowDocument) -> None:
    failed = Happening(EventType.NODE_FAILED, {"error": {"kind": "user_error", "message": "no"}}, "d")

    assert names(taken_over(document, [completed("a"), failed], from_node="b")) == ["a"]


def test_of_several_rounds_the_last_counts(document: FlowDocument) -> None:
    (kept,) = taken_over(document, [completed("a"), completed("a", outputs={"message": 2}, round=2)], from_node="b")

    assert kept.data == {"outputs": {"message": 2}, "taken_over": True}


def test_a_node_that_is_not_there_is_named_with_those_that_are(document: FlowDocument) -> None:
    with pytest.raises(Invalid, match=r'has no node "x"; it has: .*a'):
        taken_over(document, [], from_node="x")


def test_a_waitpoint_that_is_needed_is_opened_anew_and_its_url_told_again() -> None:
    raw = {
        "name": "asks",
        "nodes": [
            {"id": "link", "node_type": "wait.url"},
            {"id": "tell", "node_type": "debug.log"},
            {"id": "ok", "node_type": "wait.approval"},
            {"id": "other", "node_type": "debug.log"},
        ],
        "connections": [
            {"from_node": "link", "from_port": "url", "to_node": "tell", "to_port": "message"},
            {"from_node": "link", "from_port": "token", "to_node": "ok", "to_port": "token"},
        ],
    }
    document, _ = read_document(raw, catalog=load_catalog(), max_inline_http=timedelta(minutes=5))

    kept = taken_over(document, [completed(node.id) for node in document.nodes], from_node="ok")

    assert names(kept) == ["other"]
