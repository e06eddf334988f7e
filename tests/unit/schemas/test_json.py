"""JSON as users write it: integers of any size stay exact, and whatever is written can be read again."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.json import dumps, loads, loads_foreign, to_bytes, whole

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def kinds(value: Any) -> Any:
    """Tell the types too: 1 and 1.0 are equal to Python."""
    return json.dumps(value, sort_keys=True)


@given(ANY_JSON)
def test_what_is_written_is_read_again_exactly(value: Any) -> None:
    assert kinds(loads(dumps(value))) == kinds(value)
    assert kinds(loads(to_bytes(value, option=orjson.OPT_INDENT_2))) == kinds(value)


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        '{"at":[12345678901234567890123]}',
        '["1234567890123456789012", 1]',
        "[0.12345678901234567890123, 12345678901234567890e3]",
    ],
)
def test_numbers_are_read_as_the_standard_library_reads_them(text: str) -> None:
    assert kinds(loads(text)) == kinds(loads(text.encode())) == kinds(json.loads(text))


def test_what_json_has_no_word_for_becomes_null() -> None:
    assert dumps([math.nan, math.inf, 10**20, 2 * 10**308]) == "[null,null,100000000000000000000,null]"


def test_half_a_surrogate_pair_is_written_as_a_replacement() -> None:
    assert dumps({"\ud83d": ["a\ude00", "\ud83d\ude00"]}) == '{"\ufffd":["a\ufffd","😀"]}'


def test_half_a_surrogate_pair_is_refused_where_the_text_is_ones_own() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads(r'"\ud83d"')


def test_half_a_surrogate_pair_of_another_program_becomes_a_replacement() -> None:
    text = r'{"a": ["\ud83d", "\ud83d\ude00", "\\ud83d"], "\udc00": 123456789012345678901}'

    assert loads_foreign(text) == loads_foreign(text.encode())
    assert loads_foreign(text) == {"a": ["\ufffd", "😀", r"\ud83d"], "\ufffd": 123456789012345678901}


@pytest.mark.parametrize(
    "text", ["{", r'["\ud83d"', r'["\ud83d", NaN]', r'["\u12"]', "[" * 2000 + r'"\ud83d"' + "]" * 2000]
)
def test_what_is_no_json_stays_none_with_half_pairs_too(text: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads_foreign(text)


def test_big_integers_nested_too_deeply_are_no_json() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads("[" * 1020 + "123456789012345678901" + "]" * 1020)


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_whole_text_can_be_written_and_is_otherwise_the_same(text: str) -> None:
    mended = whole(text)

    mended.encode()
    assert whole(mended) == mended
