"""FlowEngine's typed values and ids, made of Flo's plain ones. The other way round is `schemas.typed`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from schemas.ids import number_of
from schemas.json import JSONObject, JSONValue


def typed(value: JSONValue) -> JSONObject:
    """Write a config's value in the typed form, nested, as FlowEngine's documents do."""
    match value:
        case None:
            return {"type": "Null"}
        case bool():
            return {"type": "Bool", "value": value}
        case int() | float():
            return {"type": "Number", "value": value}
        case str():
            return {"type": "String", "value": value}
        case list():
            return {"type": "Array", "value": [typed(item) for item in value]}
        case _:
            return {"type": "Object", "value": {key: typed(item) for key, item in value.items()}}


def typed_outputs(outputs: JSONValue) -> JSONObject:
    """Write a node's outputs, each with its type; what has parts is `Json`, as FlowEngine's nodes give it."""
    if not isinstance(outputs, dict):
        return {}
    return {name: typed_output(value) for name, value in outputs.items()}


def typed_output(value: JSONValue) -> JSONObject:
    return {"type": "Json", "value": value} if isinstance(value, list | dict) else typed(value)


def workflow_of(document: Mapping[str, Any], *, flow: str) -> JSONObject:
    """Write a canonical document as FlowEngine does: typed configs, every field there. Read again, it is the same."""
    rest = {key: value for key, value in document.items() if key not in ("schema_version", "nodes")}
    nodes = [
        {**node, "config": {key: typed(value) for key, value in node.get("config", {}).items()}}
        for node in document["nodes"]
    ]
    return {"description": None, **rest, "id": flow, "nodes": nodes, "triggers": list(rest.get("triggers", ()))}


def execution_id(run_id: str) -> str:
    """Give a run's id as the UUID that FlowEngine's clients expect: the same 128 bits."""
    return str(uuid.UUID(int=number_of(run_id)))
