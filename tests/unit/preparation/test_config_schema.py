"""The JSON Schema of a hub package's config, as a model whose mistakes are worded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.nodes.config_schema import model_from, with_defaults
from schemas.nodes.hub import HubConfig, HubManifest, config_model
from schemas.wording import problems_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["to"],
    "properties": {
        "to": {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"},
        "times": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10, "default": 2},
        "ratio": {"type": "number", "maximum": 1},
        "how": {"enum": ["fast", "slow", None]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "deep": {"type": "object", "properties": {"on": {"type": "boolean", "default": True}}},
        "words": {"type": "object", "additionalProperties": {"type": "integer"}},
        "maybe": {"type": ["string", "null"], "maxLength": 3},
        "json": {"description": "anything"},
    },
}


def model(schema: dict[str, Any] = SCHEMA) -> type[HubConfig]:
    return model_from(schema, base=HubConfig, name="test")


def mistakes_in(config: dict[str, Any]) -> dict[str, str]:
    try:
        model().model_validate(config)
    except ValidationError as mistakes:
        return {each.path: each.message for each in problems_of(mistakes, path="config", model=model())}
    return {}


def test_a_config_that_fits_is_taken() -> None:
    limits = {"timeout_ms": 5, "memory_mb": 64}
    texts = {"to": "bo", "how": None, "tags": ["a"], "maybe": None}
    config = {**texts, "times": 3, "ratio": 0.5, "deep": {"on": False}, "words": {"a": 1}, "json": {"x": [1]}, **limits}

    assert model().model_validate(config).model_dump(by_alias=True, exclude_unset=True) == config


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, "config.to"),
        ({"to": ""}, "config.to"),
        ({"to": "BO"}, "config.to"),
        ({"to": 3}, "config.to"),
        ({"to": "bo", "times": 10}, "config.times"),
        ({"to": "bo", "times": "3"}, "config.times"),
        ({"to": "bo", "ratio": 2}, "config.ratio"),
        ({"to": "bo", "how": "slowly"}, "config.how"),
        ({"to": "bo", "tags": ["a", "b", "c"]}, "config.tags"),
        ({"to": "bo", "tags": [1]}, "config.tags[0]"),
        ({"to": "bo", "words": {"a": "x"}}, "config.words.a"),
        ({"to": "bo", "tme": 1}, "config.tme"),
    ],
)
def test_each_mistake_has_its_place(config: dict[str, Any], path: str) -> None:
    assert list(mistakes_in(config)) == [path]


def test_defaults_are_filled_in_at_every_depth() -> None:
    assert with_defaults(SCHEMA, {"to": "bo", "deep": {}}) == {"to": "bo", "times": 2, "deep": {"on": True}}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array"}, '"type" must be "object"'),
        ({"properties": {"a": {"type": "text"}}}, 'config.a: unknown type "text"'),
        ({"properties": {"a": {"type": "string", "format": "email"}}}, 'the keyword "format" is not supported'),
        ({"properties": {"a": {"$ref": "#/x"}}}, 'the keyword "$ref" is not supported'),
        ({"properties": {"timeout_ms": {}}}, "every node has this key already"),
        ({"properties": {"a": 3}}, "config.a: must be an object"),
        ({"required": ["a"]}, '"required" must list keys of "properties"'),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "config"),
        ({"properties": {"a": {"enum": []}}}, '"enum" must list'),
    ],
)
def test_a_schema_that_is_not_supported_says_where_and_why(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        model(schema)

    assert said in str(refused.value)


def test_an_input_port_may_be_set_in_the_config_and_does_not_reach_it_twice() -> None:
    manifest = HubManifest.model_validate(
        {
            "node": "./node.js",
            "inputs": [{"name": "text", "type": "string"}],
            "config": {"properties": {"to": {"default": 1}}},
        }
    )

    config = config_model(manifest, "test").model_validate({"text": "hello", "memory_mb": 64})

    assert config.own() == {"to": 1}
