"""transform.json_parse and transform.json_stringify."""

from __future__ import annotations

import json
from collections.abc import Mapping

import orjson

from schemas.json import JSONValue, dumps, loads
from schemas.nodes.transform import ParseConfig, StringifyConfig
from schemas.outcome import ErrorKind
from workers.nodes.node import NodeCall, node_error


class JsonParse:
    async def run(self, call: NodeCall[ParseConfig]) -> Mapping[str, JSONValue]:
        text = call.inputs["json"]
        assert isinstance(text, str)
        try:
            return {"parsed": loads(text)}
        except orjson.JSONDecodeError as mistake:
            raise node_error(
                ErrorKind.USER,
                f'input "json" is not JSON: {mistake.msg} at line {mistake.lineno}, column {mistake.colno}',
                line=mistake.lineno,
                column=mistake.colno,
            ) from None


class JsonStringify:
    async def run(self, call: NodeCall[StringifyConfig]) -> Mapping[str, JSONValue]:
        value = call.inputs["value"]
        return {"json": _pretty(value) if call.config.pretty else dumps(value)}


def _pretty(value: JSONValue) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    except TypeError:  # integers beyond 64 bits, as in `schemas.json.dumps`
        return json.dumps(value, indent=2, ensure_ascii=False)
