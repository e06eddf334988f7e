"""A user's own JSON: the only untyped thing that may cross a package border."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import JsonValue

#: A user's payload, inputs, outputs or config, exactly as JSON can say it.
JSONValue = JsonValue
JSONObject = dict[str, JsonValue]


def dumps(value: Any) -> str:
    """Write compact JSON text.

    Integers of any size are kept (orjson stops at 64 bits, so those fall back to the standard library).
    NaN and infinities become null, as JSON has no word for them.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        import json

        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """Read JSON text; raise ValueError with line and column when it is malformed."""
    return orjson.loads(text)
