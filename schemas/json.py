"""A user's own JSON: the only untyped thing that may cross a package border."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import orjson
from pydantic import JsonValue

#: A user's payload, inputs, outputs or config, exactly as JSON can say it.
JSONValue = JsonValue
JSONObject = dict[str, JsonValue]

#: Digits that an integer beyond 64 bits has at least; orjson reads such a one as a float.
_LONG = 19
_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS = b"0" * _LONG
_BEYOND_64_BITS = re.compile(rb"-\d{19}|\d{20}")
#: The largest that is read again: beyond it, orjson takes a number for infinity.
_LARGEST = int(sys.float_info.max)
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> str:
    """Write compact JSON text. See `to_bytes` for numbers and text that not every reader can take."""
    return to_bytes(value).decode()


def to_bytes(value: Any, *, option: int | None = None) -> bytes:
    """Write JSON as UTF-8, with orjson's options.

    Integers are kept up to the largest float, some 1.8e308. What is beyond, NaN and infinities become null, as JSON has
    no word for them; half a surrogate pair becomes U+FFFD, as UTF-8 has none for that.
    """
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return orjson.dumps(_writable(value), option=option)


def loads(text: str | bytes) -> Any:
    """Read JSON text; integers beyond 64 bits stay what they are.

    Raises orjson.JSONDecodeError, a ValueError with line and column, when it is malformed or has half a surrogate pair.
    """
    value = orjson.loads(text)
    return _read_exactly(text) if _may_be_long(text) else value


def loads_own(text: str | bytes) -> Any:
    """Read JSON that this program wrote for itself, with no user's value in it: no number is too long for orjson.

    Raises orjson.JSONDecodeError.
    """
    return orjson.loads(text)


def loads_foreign(text: str | bytes) -> Any:
    """Read JSON that somebody else's program wrote; half a surrogate pair, which JavaScript can write, becomes U+FFFD.

    Raises orjson.JSONDecodeError as `loads` does.
    """
    try:
        return loads(text)
    except orjson.JSONDecodeError:
        if (b"\\u" if isinstance(text, bytes) else "\\u") not in text:  # type: ignore[operator]
            raise
        mended = _mended_escapes(text)
        if mended is None:
            raise
    return loads(mended)


def whole(text: str) -> str:
    """Put U+FFFD in place of each half of a surrogate pair; join halves that belong together."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def has_half_pair(text: str) -> bool:
    return _HALF_PAIR.search(text) is not None


def _mended_escapes(text: str | bytes) -> str | None:
    """Write the same JSON without half pairs; None when there is something else wrong with it."""
    try:
        return whole(json.dumps(json.loads(text, parse_constant=_not_json), ensure_ascii=False))
    except (ValueError, RecursionError):
        return None


def _not_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _may_be_long(text: str | bytes) -> bool:
    """Tell quickly whether there can be an integer beyond 64 bits; it costs less than reading."""
    if len(text) < _LONG:
        return False
    data = text.encode() if isinstance(text, str) else text
    return _MANY_DIGITS in data.translate(_ALIKE) and _BEYOND_64_BITS.search(data) is not None


def _read_exactly(text: str | bytes) -> Any:
    """Read with the standard library, which keeps integers of any size. The text is well-formed: orjson has read it."""
    text = text if isinstance(text, str) else text.decode()
    try:
        return json.loads(text)
    except RecursionError:
        raise orjson.JSONDecodeError("nested too deeply", text, 0) from None


def _writable(value: Any) -> Any:
    """Put what orjson refuses into a form that it takes."""
    match value:
        case bool():
            return value
        case int() if not -(2**63) <= value < 2**64:
            return orjson.Fragment(str(value)) if abs(value) <= _LARGEST else None
        case str():
            return whole(value)
        case dict():
            return {_writable(key) if isinstance(key, str) else key: _writable(item) for key, item in value.items()}
        case list() | tuple():
            return [_writable(item) for item in value]
    return value
