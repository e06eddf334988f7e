"""Reads request bodies: JSON with the place of every mistake, checked against a model."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from scheduler.problem import Malformed, WrongMediaType
from schemas.errors import Invalid, Problem
from schemas.half_pairs import read_own
from schemas.json import loads_foreign, to_bytes
from schemas.wording import problems_of, short

Body = TypeVar("Body", bound=BaseModel)

#: Deepest nesting of arrays and objects: what orjson writes again.
DEEPEST = 254

#: Bodies larger than this are parsed in a thread, so that other requests are answered meanwhile.
LARGE = 256 * 1024


async def read_body(request: Request, model: type[Body]) -> Body:
    """Read a JSON object; no body counts as an empty one.

    Raises WrongMediaType, Malformed (with line and column), or Invalid with every mistake.
    """
    value = await read_json(request) if await request.body() else {}
    if not isinstance(value, dict):
        raise Invalid([Problem(path="$", message=f"must be an object; given {short(value)}")], what="request body")
    try:
        return model.model_validate(value)
    except ValidationError as mistakes:
        raise Invalid(problems_of(mistakes, path="", model=model), what="request body") from None


async def read_json(request: Request) -> Any:
    """Read any JSON value; None when there is no body."""
    body = await request.body()
    if not body:
        return None
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise WrongMediaType(
            f"the body is {kind}, and only application/json is read here; send Content-Type: application/json"
        )
    return await asyncio.to_thread(parse_json, body) if len(body) > LARGE else parse_json(body)


def parse_json(body: bytes, *, foreign: bool = False) -> Any:
    """Parse JSON. Half a surrogate pair is the caller's mistake, but U+FFFD where a `foreign` program wrote the body.

    Raises Malformed with line and column, or Invalid for such halves and for nesting that can't be written again.
    """
    try:
        value = loads_foreign(body) if foreign else read_own(body, what="request body")
    except orjson.JSONDecodeError as error:
        raise Malformed(
            f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}); mend it there"
        ) from None
    if body.count(b"[") + body.count(b"{") >= DEEPEST:
        try:
            to_bytes(value)
        except orjson.JSONEncodeError:
            message = f"the body is nested deeper than {DEEPEST} levels"
            raise Invalid([Problem(path="$", message=message, fix="flatten it")], what="request body") from None
    return value
