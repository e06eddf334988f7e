"""Node types that turn one value into another."""

from __future__ import annotations

from pydantic import Field

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
