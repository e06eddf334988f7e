"""Node types that turn one value into another."""

from __future__ import annotations

from pydantic import Field, field_validator

from schemas.expression import ExpressionError, check_expression
from schemas.flow import Expression, Whole
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port


class ParseConfig(NodeConfig):
    #: Named `json` in documents.
    json_text: str | None = Field(default=None, alias="json", description="used when no connection brings one")


class StringifyConfig(NodeConfig):
    value: JSONValue = Field(default=None, description="used when no connection brings one")
    pretty: bool = Field(default=True, description="indent by two spaces; false writes it compactly")


JSON_PARSE = NodeType(
    type="transform.json_parse",
    category="transform",
    description="Reads JSON text.",
    inputs=(Port(name="json", type="string", required=True, description="the text"),),
    outputs=(Port(name="parsed", description="the value it stands for"),),
    config=ParseConfig,
    example={},
)

JSON_STRINGIFY = NodeType(
    type="transform.json_stringify",
    category="transform",
    description="Writes a value as JSON text.",
    inputs=(Port(name="value", required=True, description="any value"),),
    outputs=(Port(name="json", type="string", description="its JSON text"),),
    config=StringifyConfig,
    example={"pretty": False},
)


def _check_template(template: JSONValue, where: str = "map") -> None:
    match template:
        case str():
            try:
                check_expression(template)
            except ExpressionError as mistake:
                raise ValueError(f"{where}: {mistake}") from None
        case dict():
            for key, part in template.items():
                _check_template(part, f"{where}.{key}")
        case list():
            for index, part in enumerate(template):
                _check_template(part, f"{where}[{index}]")


class MapConfig(NodeConfig):
    #: Named `map` in documents.
    template: JSONValue = Field(
        alias="map", description="an expression, or an object or array of them; numbers, true, false and null stay"
    )
    where: Expression | None = Field(default=None, description="with items: keep those for which this holds")
    max_output_bytes: Whole = Field(default=1_000_000, ge=1, le=100_000_000, description="limit on what it makes")

    @field_validator("template")
    @classmethod
    def _readable(cls, value: JSONValue) -> JSONValue:
        _check_template(value)
        return value


TRANSFORM_MAP = NodeType(
    type="transform.map",
    category="transform",
    description="Makes a new value out of its inputs by expressions; with items, one for each of them.",
    inputs=(Port(name="items", type="array", description="do it for each, as `item` and `index`"),),
    outputs=(Port(name="output", description="the new value; each key of an object is a port too"),),
    open_inputs=True,
    open_outputs=True,
    config=MapConfig,
    example={"map": {"name": "user.first + ' ' + user.last", "adult": "user.age >= 18"}},
)
