"""FlowEngine's typed form: every config value as `{"type": ..., "value": ...}`, nested. Here it becomes plain JSON.

The tags are those of FlowEngine's `Value` enum: Null, Bool, Number, String, Bytes, Json, Array, Object.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from schemas.errors import Problem
from schemas.wording import short

_PLAIN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "Null": (lambda value: value is None, "null"),
    "Bool": (lambda value: isinstance(value, bool), "true or false"),
    "Number": (lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number"),
    "String": (lambda value: isinstance(value, str), "a string"),
    "Bytes": (
        lambda value: isinstance(value, list) and all(type(byte) is int and 0 <= byte < 256 for byte in value),
        "an array of whole numbers from 0 to 255",
    ),
    "Json": (lambda value: True, "any JSON"),
    "Array": (lambda value: isinstance(value, list), "an array of typed values"),
    "Object": (lambda value: isinstance(value, dict), "an object of typed values"),
}


def is_typed_form(raw: dict[str, Any]) -> bool:
    """Tell whether this document's configs are written in the typed form.

    FlowEngine's documents always carry `triggers`; one without it is still typed when every config value looks so.
    Flo's own canonical form says `schema_version`, and is never typed.
    """
    if "schema_version" in raw:
        return False
    if "triggers" in raw:
        return True
    nodes = raw.get("nodes")
    configs = [node.get("config") for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    values = [value for config in configs if isinstance(config, dict) for value in config.values()]
    return bool(values) and all(_looks_typed(value) and value["type"] in _PLAIN for value in values)


def plain_config(config: dict[str, Any], *, path: str, problems: list[Problem]) -> dict[str, Any]:
    """Take the types off every value that has one; add a Problem for each that contradicts its type."""
    return {
        key: _plain(value, f"{path}.{key}", problems) if _looks_typed(value) else value for key, value in config.items()
    }


def _looks_typed(value: Any) -> bool:
    match value:
        case {"type": str(), "value": _}:
            return len(value) == 2
        case {"type": "Null"}:
            return len(value) == 1
    return False


def _plain(typed: Any, path: str, problems: list[Problem]) -> Any:
    if not _looks_typed(typed):
        problems.append(
            Problem(
                path=path,
                message=f"given {short(typed)}, but here every value is typed",
                fix='write {"type": "String", "value": "..."}',
            )
        )
        return None
    tag, value = typed["type"], typed.get("value")
    if tag not in _PLAIN:
        close = difflib.get_close_matches(tag, _PLAIN, n=1)
        problems.append(
            Problem(
                path=f"{path}.type",
                message=f'unknown value type "{tag}"; allowed: {", ".join(_PLAIN)}',
                fix=f'did you mean "{close[0]}"?' if close else "",
            )
        )
        return None
    fits, wanted = _PLAIN[tag]
    if not fits(value):
        problems.append(Problem(path=f"{path}.value", message=f"type {tag} needs {wanted}; given {short(value)}"))
        return None
    match tag:
        case "Array":
            return [_plain(item, f"{path}.value[{index}]", problems) for index, item in enumerate(value)]
        case "Object":
            return {key: _plain(item, f"{path}.value.{key}", problems) for key, item in value.items()}
        case "Number" if isinstance(value, float) and value.is_integer():
            return int(value)  # FlowEngine has one kind of number, a double
    return value
