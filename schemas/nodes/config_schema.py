"""Turns the JSON Schema of a hub package's config into a model, so that its mistakes are worded like all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, create_model
from pydantic_core import SchemaError

from schemas.flow import Part, Whole
from schemas.json import JSONObject, JSONValue

M = TypeVar("M", bound=BaseModel)

_WORDS = frozenset({"title", "description", "default", "examples", "$schema", "$comment"})
#: By type: what a schema may say, and what pydantic calls it.
_BOUNDS: Mapping[str, Mapping[str, str]] = {
    "string": {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"},
    "integer": {
        "minimum": "ge",
        "maximum": "le",
        "exclusiveMinimum": "gt",
        "exclusiveMaximum": "lt",
        "multipleOf": "multiple_of",
    },
    "array": {"minItems": "min_length", "maxItems": "max_length"},
    "object": {},
    "boolean": {},
    "null": {},
}
#: mypy takes `list[variable]` for a mistake; these are made while the program runs.
_ANNOTATED: Any = Annotated
_LIST: Any = list
_DICT: Any = dict
_MORE = {"array": {"items"}, "object": {"properties", "required", "additionalProperties"}}


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


def model_from(schema: JSONObject, *, base: type[M], name: str, path: str = "config") -> type[M]:
    """Make a model of an object's schema. Raises ValueError that names a keyword which is not supported."""
    if schema.get("type", "object") != "object":
        raise ValueError(f'{path}: "type" must be "object"')
    _check_keywords(schema, "object", path)
    properties, required = _object(schema.get("properties", {}), path), schema.get("required", [])
    if not isinstance(required, list) or not set(map(str, required)) <= set(properties):
        raise ValueError(f'{path}: "required" must list keys of "properties"')
    fields: dict[str, Any] = {}
    for number, (key, part) in enumerate(properties.items()):
        if key in base.model_fields:
            raise ValueError(f"{path}.{key}: every node has this key already; choose another")
        inner = _object(part, f"{path}.{key}")
        annotation = _annotation(inner, name=f"{name}_{key}", path=f"{path}.{key}")
        default: Any = ... if key in required else inner.get("default")
        text = inner.get("description")
        # A name that means something to pydantic can't be a field's own.
        plain = key.isidentifier() and key.isascii() and not key.startswith(("_", "model_")) and not hasattr(base, key)
        fields[key if plain else f"field_{number}"] = (
            annotation,
            Field(default, alias=None if plain else key, description=text if isinstance(text, str) else None),
        )
    try:
        return create_model(name, __base__=base, **fields)
    except (TypeError, SchemaError, PydanticUserError) as mistake:
        raise ValueError(f"{path}: {str(mistake).splitlines()[0]}") from None


def with_defaults(schema: JSONObject, value: JSONValue) -> JSONValue:
    """Fill in what the schema says about keys that are not given."""
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value
    filled: JSONObject = dict(value)
    for key, part in properties.items():
        if isinstance(part, dict) and key not in filled and "default" in part:
            filled[key] = part["default"]
        elif isinstance(part, dict) and key in filled:
            filled[key] = with_defaults(part, filled[key])
    return filled


def _annotation(schema: JSONObject, *, name: str, path: str) -> Any:
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, list) or not values or not all(isinstance(v, str | int | None) for v in values):
            raise ValueError(f'{path}: "enum" must list texts, whole numbers, booleans or null')
        return Literal[tuple(values)]
    kind = schema.get("type")
    if isinstance(kind, list):
        annotation = None
        for each in kind:
            one = _annotation({**_only(schema, str(each)), "type": each}, name=name, path=path)
            annotation = one if annotation is None else annotation | one
        return annotation
    if kind is None:
        _check_keywords(schema, "null", path)
        return JSONValue
    known = "integer" if kind == "number" else str(kind)
    if known not in _BOUNDS:
        raise ValueError(f'{path}: unknown type "{kind}"')
    _check_keywords(schema, known, path)
    bounds: dict[str, Any] = {ours: schema[theirs] for theirs, ours in _BOUNDS[known].items() if theirs in schema}
    match kind:
        case "string":
            return Annotated[str, Field(strict=True, **bounds)]
        case "integer":
            return Annotated[Whole, Field(**bounds)]
        case "number":
            return Annotated[float, Field(strict=True, **bounds)]
        case "boolean":
            return Annotated[bool, Field(strict=True)]
        case "null":
            return None
        case "array":
            item = _annotation(_object(schema.get("items", {}), path), name=name, path=f"{path}[]")
            return _ANNOTATED[_LIST[item], Field(**bounds)]
        case _:
            return _nested(schema, name=name, path=path)


def _nested(schema: JSONObject, *, name: str, path: str) -> Any:
    more = schema.get("additionalProperties", "properties" not in schema)
    if "properties" in schema:
        return model_from(schema, base=_Open if more else Part, name=name, path=path)
    if more is False:
        return model_from({**schema, "properties": {}}, base=Part, name=name, path=path)
    value = _annotation(more, name=name, path=f"{path}.*") if isinstance(more, dict) else JSONValue
    return _DICT[str, value]


def _only(schema: JSONObject, kind: str) -> JSONObject:
    """Keep of a schema for several types what is said about one of them."""
    others = {word for other, bounds in _BOUNDS.items() for word in (*bounds, *_MORE.get(other, ()))}
    mine = {*_BOUNDS.get("integer" if kind == "number" else kind, ()), *_MORE.get(kind, ())}
    return {key: value for key, value in schema.items() if key in mine or key not in others}


def _check_keywords(schema: JSONObject, kind: str, path: str) -> None:
    known = {"type", *_WORDS, *_BOUNDS[kind], *_MORE.get(kind, ())}
    for keyword in schema:
        if keyword not in known:
            raise ValueError(
                f'{path}: the keyword "{keyword}" is not supported here; supported: {", ".join(sorted(known))}'
            )


def _object(value: JSONValue, path: str) -> JSONObject:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must be an object")
    return value
