"""The JSON Schema of flow documents, for editors: complete while one types, hover to read what a key means.

It describes the canonical form with every node type's config. What only Flo itself can check (ports, rings, what the
operator allows) it does not say; `flo validate` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.flow import FlowDocument
from schemas.json import JSONObject
from schemas.nodes.spec import NodeType

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def flow_schema(types: Iterable[NodeType]) -> JSONObject:
    """Write the schema of documents that use these node types."""
    schema: dict[str, Any] = FlowDocument.model_json_schema()
    parts: dict[str, Any] = schema["$defs"]
    types = sorted(types, key=lambda node_type: node_type.type)
    configs = {node_type.type: _config(node_type, parts) for node_type in types}
    for name in ("Node", "InnerNode"):
        if name in parts:
            parts[name]["properties"]["node_type"] = {
                "description": "what the node does",
                "oneOf": [{"const": each.type, "description": each.description} for each in types],
            }
            parts[name]["allOf"] = [
                {
                    "if": {"properties": {"node_type": {"const": node_type}}, "required": ["node_type"]},
                    "then": {"properties": {"config": {"$ref": f"#/$defs/{config}"}}},
                }
                for node_type, config in configs.items()
            ]
    schema["properties"]["$schema"] = {"type": "string", "description": "where this schema is; for editors"}
    limit = parts["FlowSettings"]["properties"]["max_execution_time_ms"]
    limit["type"] = [limit["type"], "null"]  # FlowEngine writes null for "as usual"
    return {"$schema": DIALECT, **schema}


def _config(node_type: NodeType, parts: dict[str, Any]) -> str:
    """Add the schema of a type's config to the parts, and name it; parts of documents are shared, not repeated."""
    config = node_type.config.model_json_schema()
    own = config.pop("$defs", {})
    names = {name: name if _is_shared(name, part, parts) else f"{node_type.type}.{name}" for name, part in own.items()}
    for name, part in own.items():
        parts.setdefault(names[name], _renamed(part, names))
    key = f"{node_type.type}.config"
    parts[key] = {**_renamed(config, names), "description": node_type.description, "examples": [node_type.example]}
    return key


def _is_shared(name: str, part: Any, parts: dict[str, Any]) -> bool:
    return name in ("InnerFlow", "InnerNode") or (name in parts and part.get("title") == parts[name].get("title"))


def _renamed(part: Any, names: dict[str, str]) -> Any:
    """Follow references to where their targets are now."""
    match part:
        case {"$ref": str(ref)}:
            name = ref.removeprefix("#/$defs/")
            return {**part, "$ref": f"#/$defs/{names.get(name, name)}"}
        case dict():
            return {key: _renamed(value, names) for key, value in part.items()}
        case list():
            return [_renamed(value, names) for value in part]
    return part
