"""What the routes share in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import BaseModel

from scheduler.problem import MEDIA_TYPE
from schemas.json import JSONValue

#: What apps, flows, events and secrets may be called.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
#: Any text but the one character that Postgres can't keep.
TEXT = r"^[^\x00]*$"
_NAME_SAYS = 'letters, digits, ".", "_" and "-", beginning with a letter or digit'

AppName = Annotated[str, Path(pattern=NAME, max_length=100, description=f"the app: {_NAME_SAYS}", examples=["shop"])]
FlowName = Annotated[str, Path(pattern=NAME, max_length=200, description=f"the flow: {_NAME_SAYS}", examples=["hi"])]
EventName = Annotated[str, Path(pattern=NAME, max_length=200, description=f"the event: {_NAME_SAYS}", examples=["hi"])]
SecretName = Annotated[str, Path(pattern=NAME, max_length=200, description=f"the secret: {_NAME_SAYS}")]
RunId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9_]+$", description="the run's id")]

LetterId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9_]+$", description="the run's or message's id")]
MessageId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9_]+$", description="the message's id")]

AppFilter = Annotated[str | None, Query(pattern=NAME, max_length=100, description="only this app's")]
FlowFilter = Annotated[str | None, Query(pattern=NAME, max_length=200, description="only this flow's")]
EventFilter = Annotated[str | None, Query(pattern=NAME, max_length=200, description="only those this event started")]
Limit = Annotated[int, Query(ge=1, le=1000, description="how many at most")]
Cursor = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9._-]+$", max_length=200, description="`next_cursor` of the page before")
]
IdempotencyKey = Annotated[
    str | None, Header(description="the same key (and body) leads to the same run, however often it is sent")
]


class Page(BaseModel):
    """One page of a list."""

    #: Give it as `cursor` to get the next page; null on the last one.
    next_cursor: str | None


class Started(BaseModel):
    """A run that was accepted."""

    run_id: str
    status: str
    #: Good for following this run, for 24 hours: `Authorization: Bearer <poll_token>`.
    poll_token: str
    #: What carries the job.
    backend: str


class Ended(BaseModel):
    """How a run ended."""

    run_id: str
    status: str
    result: JSONValue
    error: dict[str, JSONValue] | None


_REASONS = {
    400: "the request can't be read; the detail names line and column",
    401: "no valid key",
    403: "the key may not do this, or the operator does not allow it",
    404: "no such thing",
    405: "no such method here",
    409: "it contradicts what is already so",
    410: "it was retired",
    413: "the body is too large",
    415: "the body is not JSON",
    422: "understood, but wrong; `errors` has every mistake",
    503: "the database or the broker is away; Retry-After says when to come back",
}

#: Every route can answer with these.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": reason,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
    for status, reason in _REASONS.items()
}


def json_body(model: type[BaseModel] | None, *, required: bool = True, example: Any = None) -> dict[str, Any]:
    """Describe a JSON body that the route reads by itself; without a model, any object."""
    schema = {"type": "object"} if model is None else inlined(model)
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Give a model's JSON Schema without references, so that it can stand anywhere."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def expand(value: Any) -> Any:
        match value:
            case {"$ref": str() as reference}:
                return expand(parts[reference.rsplit("/", 1)[-1]])
            case dict():
                return {key: expand(item) for key, item in value.items()}
            case list():
                return [expand(item) for item in value]
        return value

    expanded: dict[str, Any] = expand(schema)
    return expanded
