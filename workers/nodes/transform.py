"""transform.json_parse, transform.json_stringify and transform.map."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from schemas.expression import ExpressionError, evaluate, truth
from schemas.json import JSONValue, dumps, loads_foreign, to_bytes
from schemas.nodes.transform import MapConfig, ParseConfig, StringifyConfig
from schemas.outcome import ErrorKind
from workers.nodes.node import NodeCall, node_error


class JsonParse:
    async def run(self, call: NodeCall[ParseConfig]) -> Mapping[str, JSONValue]:
        text = call.inputs["json"]
        assert isinstance(text, str)
        try:
            return {"parsed": loads_foreign(text)}
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
    return to_bytes(value, option=orjson.OPT_INDENT_2).decode()


#: Items that are mapped before the event loop may serve others.
ITEMS_PER_TURN = 200


class Map:
    """Make the value that the template describes, once or for each item, and give its keys as ports too."""

    async def run(self, call: NodeCall[MapConfig]) -> Mapping[str, JSONValue]:
        config, items = call.config, call.inputs.get("items")
        try:
            output = filled(config.template, call.inputs) if items is None else await _each(config, call.inputs, items)
        except ExpressionError as mistake:
            raise node_error(ErrorKind.USER, str(mistake)) from None
        if not _fits(output, config.max_output_bytes):
            raise node_error(
                ErrorKind.OUTPUT_EXCEEDED,
                f"the new value is bigger than {config.max_output_bytes:,} bytes; raise max_output_bytes or make less",
                limit=config.max_output_bytes,
                raise_with="max_output_bytes",
            )
        return {**output, "output": output} if isinstance(output, dict) else {"output": output}


async def _each(config: MapConfig, inputs: Mapping[str, JSONValue], items: JSONValue) -> JSONValue:
    made: list[JSONValue] = []
    for index, item in enumerate(items if isinstance(items, list) else ()):
        here = {**inputs, "item": item, "index": index}
        if config.where is None or truth(config.where, here):
            made.append(filled(config.template, here))
        if index % ITEMS_PER_TURN == ITEMS_PER_TURN - 1:
            await asyncio.sleep(0)
    return made


def filled(template: JSONValue, inputs: Mapping[str, JSONValue]) -> JSONValue:
    """Put the value of each expression in its place. Raises ExpressionError."""
    match template:
        case str():
            return evaluate(template, inputs)
        case dict():
            return {key: filled(part, inputs) for key, part in template.items()}
        case list():
            return [filled(part, inputs) for part in template]
    return template


def _fits(value: JSONValue, room: int) -> bool:
    """Tell whether a value has at most so many bytes as JSON, roughly, without writing it out.

    A small value may stand in it a thousand times, and that again a thousand times in the next node: as values in
    memory they cost nothing, as text everything.
    """
    todo = [value]
    while todo:
        match todo.pop():
            case str() as text:
                room -= len(text)
            case dict() as inner:
                room -= sum(map(len, inner))
                todo += inner.values()
            case list() as inner:
                todo += inner
        room -= 2
        if room < len(todo):
            return False
    return True
