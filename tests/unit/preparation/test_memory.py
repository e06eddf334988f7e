"""What a process remembers of its preparations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outcome import ErrorKind
from workers.preparation.entry import from_bytes, to_bytes
from workers.preparation.memory import A_WHILE, Memory, believed_until
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared, Recipe

NOW = datetime(2026, 11, 21, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]))
preparations: st.SearchStrategy[Preparation] = st.one_of(
    st.builds(Prepared, texts, texts),
    st.builds(
        Flaw,
        kind=st.sampled_from(ErrorKind),
        message=texts,
        line=st.none() | st.integers(1, 10**6),
        column=st.none() | st.integers(1, 10**6),
        lasts=st.sampled_from(Lasts),
    ),
)


def recipe(source: str) -> Recipe:
    return Recipe(source, "typescript")


@given(preparations, st.none() | st.just(NOW))
def test_what_is_written_down_reads_the_same(preparation: Preparation, until: datetime | None) -> None:
    assert from_bytes(to_bytes(preparation, until), NOW) == (preparation, until)


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"until": null, "is": "Flaw"}', b'{"until": "x"}'])
def test_what_is_nothing_of_ours_reads_as_nothing(body: bytes) -> None:
    assert from_bytes(body, NOW) is None


def test_a_flaw_that_may_pass_is_believed_for_a_while() -> None:
    flaw = Flaw(kind=ErrorKind.INVALID_INPUT, message="no such version", lasts=Lasts.A_WHILE)
    clock = [NOW]
    memory = Memory(max_characters=1000, now=lambda: clock[0])
    until = believed_until(flaw, NOW)
    memory.put(recipe("a"), flaw, until)

    assert memory.get(recipe("a")) == flaw
    clock[0] = NOW + A_WHILE + timedelta(seconds=1)
    assert memory.get(recipe("a")) is None
    assert from_bytes(to_bytes(flaw, until), clock[0]) is None


def test_what_was_used_longest_ago_makes_room() -> None:
    memory = Memory(max_characters=25, now=lambda: NOW)
    memory.put(recipe("a"), Prepared("x" * 9, ""), None)
    memory.put(recipe("b"), Prepared("x" * 9, ""), None)
    memory.get(recipe("a"))

    memory.put(recipe("c"), Prepared("x" * 9, ""), None)

    assert [source for source in "abc" if memory.get(recipe(source))] == ["a", "c"]


def test_what_is_bigger_than_the_memory_is_not_kept() -> None:
    memory = Memory(max_characters=10, now=lambda: NOW)

    memory.put(recipe("a"), Prepared("x" * 100, ""), None)

    assert memory.get(recipe("a")) is None


@given(texts, texts)
def test_the_key_tells_apart_what_would_be_built_apart(one: str, other: str) -> None:
    mine = Recipe(one, "typescript", (("a", "1.0.0"), ("b", "2.0.0")))

    assert mine.key("r") == Recipe(one, "typescript", (("b", "2.0.0"), ("a", "1.0.0"))).key("r")
    assert mine.key("r") != mine.key("another runtime")
    assert mine.key("r") != Recipe(one, "typescript", (("a", "1.0.1"), ("b", "2.0.0"))).key("r")
    assert (mine.key("r") == Recipe(other, "typescript", mine.dependencies).key("r")) == (one == other)
