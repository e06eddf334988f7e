"""Half of a surrogate pair, `"\\ud83d"` without `"\\ude00"`: JSON can write it, but it is no text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from schemas.errors import Invalid, Problem
from schemas.json import has_half_pair, loads
from schemas.wording import join_path

#: Places in one answer.
_MOST = 100


def read_own(text: bytes, *, what: str) -> Any:
    """Read JSON of the user's own, who can mend it: half a pair is a mistake with its place.

    Raises Invalid for that, and orjson.JSONDecodeError for anything else that is wrong.
    """
    try:
        return loads(text)
    except orjson.JSONDecodeError:
        problems = half_pairs(_any_text(text)) if b"\\u" in text else []
        if not problems:
            raise
    raise Invalid(problems, what=what)


def half_pairs(value: Any) -> list[Problem]:
    """Name every string, key or value, with half a pair in it."""
    try:
        orjson.dumps(value)  # refuses them, and is the quickest to say that there are none
    except TypeError:
        return _found(value)
    return []


def _found(value: Any) -> list[Problem]:
    problems: list[Problem] = []
    for path, text in _strings(value, ()):
        if has_half_pair(text):
            half = next(character for character in text if has_half_pair(character))
            at = text.index(half)
            message = f"has half of a surrogate pair (\\u{ord(half):04x}, character {at + 1}), which is no text"
            fix = "write both halves, such as \\ud83d\\ude00 or the character itself, or leave it out"
            problems.append(Problem(path=join_path("", path) or "$", message=message, fix=fix))
        if len(problems) == _MOST:
            break
    return problems


def _any_text(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _strings(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Give each string with its place; a stack of our own, as the value may be nested deeply."""
    todo: list[tuple[tuple[str | int, ...], Any]] = [(path, value)]
    while todo:
        path, value = todo.pop()
        match value:
            case str():
                yield path, value
            case dict():
                todo += [((*path, _shown(key)), item) for key, item in reversed(value.items())]
                yield from ((((*path, _shown(key))), key) for key in value if isinstance(key, str))
            case list() | tuple():
                todo += [((*path, index), item) for index, item in reversed(list(enumerate(value)))]


def _shown(key: Any) -> str:
    """Write a key so that it can stand in an answer."""
    return str(key).encode("utf-8", "backslashreplace").decode()
