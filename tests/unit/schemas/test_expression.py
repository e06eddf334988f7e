"""Expressions give JSON for JSON, and nothing else can be done with them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.expression import MAX_LENGTH, ExpressionError, check_expression, evaluate, truth

INPUTS: dict[str, Any] = {
    "order": {"total": 120, "tags": ["a", "b"], "first name": "bo"}, "country": "DE", "n": 3, "yes": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("order.total > 100 and country in ['DE', 'AT']", True),
        ("order.total", 120),
        ("order['first name'] + '!'", "bo!"),
        ("order.tags[1]", "b"),
        ("order.tags[-1]", "b"),
        ("order.tags[7]", None),
        ("nothing.at.all", None),
        ("nothing or 'default'", "default"),
        ("n * 2 + 1", 7),
        ("n / 2", 1.5),
        ("n % 2 == 1", True),
        ("-n", -3),
        ("1 < n < 5", True),
        ("'big' if n > 100 else 'small'", "small"),
        ('{"n": n, "tags": [country, null]}', {"n": 3, "tags": ["DE", None]}),
        ("not nothing", True),
        ("yes == 1", False),
        ("true == yes", True),
        ("'a' in order.tags", True),
        ("'total' in order", True),
        ("'E' in country", True),
        ("1 not in nothing", True),
        ("len(order.tags)", 2),
        ("str(n) + upper('x') + lower('Y') + trim(' z ')", "3Xyz"),
        ("number('4') + number('0.5')", 4.5),
        ("starts_with(country, 'D') and ends_with(country, 'E')", True),
        ("round(2.567, 1) + abs(-1) + min(1, 2) + max([3, 4])", 8.6),
    ],
)
def test_an_expression_has_a_value(text: str, value: object) -> None:
    assert evaluate(text, INPUTS) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("total >", "not an expression"),
        ("__import__('os')", "unknown function __import__; known: abs"),
        ("order.tags.append(1)", "unknown function order.tags.append"),
        ("(lambda: 1)()", "unknown function"),
        ("[x for x in order]", "is not possible in an expression"),
        ("f'{n}'", "is not possible"),
        ("n ** 9", "unknown sign in n ** 9; known: +"),
        ("n is 3", "unknown sign"),
        ("order.tags[0:1]", "is not possible"),
        ("{**order}", "the keys of an object must be texts"),
        ("1j", "is not possible"),
        ("b'x'", "is not possible"),
        ("-" * 300 + "1", "nested at most 50 levels"),
        ("(" * 300, "too many nested"),
        ("x" * (MAX_LENGTH + 1), "at most 2000 characters; given 2001"),
        ("a\0b", "not an expression"),
    ],
)
def test_what_is_no_expression_is_refused_before_it_is_ever_evaluated(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(why)):
        check_expression(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("country > 3", 'can\'t compare "DE" with 3: two numbers or two texts are needed'),
        ("country + 3", '+ needs numbers; given "DE" (use str(...) to join texts)'),
        ("country * 3", '* needs numbers; given "DE"'),
        ("n / 0", "3 / 0 has no value"),
        ("3 in 4", "can't look for 3 in 4"),
        ("upper(n)", "upper(3) has no value"),
        ("9999999999 * 9999999999 * 9999999999", "the number became too big"),
    ],
)
def test_an_expression_that_makes_no_sense_for_its_inputs_says_why(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(why)):
        evaluate(text, INPUTS)


def test_texts_inside_texts_do_not_grow_without_end() -> None:
    text = "payload"
    for _ in range(24):
        text = f"str([{text}])"

    with pytest.raises(ExpressionError, match="the text became longer"):
        evaluate(text, {"payload": '"' * 1000})


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        assert truth(text, INPUTS) in (True, False)
    except ExpressionError as refused:
        assert str(refused)
